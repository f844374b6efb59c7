"""Recalls once per message of the caller, no matter which hook of LiveKit asks first."""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

from livekit.agents import llm

from memoair_livekit._context import speaker_texts
from memoair_voice import SearchResult


class SearchFunction(Protocol):
    """Searches with a query, for a model whose context holds some texts. It must not raise.

    It returns None if the memory failed. ``turn_id`` is the id of the turn, if it is known yet.
    """

    def __call__(
        self, query: str, known_texts: list[str], *, turn_id: str | None = None
    ) -> Awaitable["SearchResult | None"]: ...


_WORD_PATTERN = re.compile(r"\w+")
# The searches that are kept: those for the words of one turn as they grow.
_MAX_RECALLS = 8


@dataclass
class _CachedRecall:
    words: list[str] = field(repr=False)
    task: "asyncio.Task[SearchResult | None]" = field(repr=False)
    message_ids: set[str] = field(default_factory=set)


class RecallCache:
    """Searches with the caller's words, and keeps the searches of a turn for further requests about it.

    `prefetch` searches with what the caller has said so far, before their turn is complete. LiveKit may then ask
    several times: early, with an unconfirmed transcript in a message of its own (preemptive generation), once for each
    attempt; when the turn is complete; and for each part of an answer around tool calls. The same words are searched
    for once in a turn, also if the search fails. Use it only in the thread of the event loop.
    """

    def __init__(self, search: SearchFunction) -> None:
        """Create a cache."""
        self._search = search
        self._recalls: deque[_CachedRecall] = deque(maxlen=_MAX_RECALLS)

    def has_early_answer(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> bool:
        """Return whether an answer to the same words is already being generated, with the text recalled for them.

        In that case the search was made for another message, which never became part of the conversation.
        """
        recall = self._find_by_words(_normalize_words(message.text_content), chat_ctx)
        return recall is not None and bool(recall.message_ids) and message.id not in recall.message_ids

    def prefetch(self, text: str, chat_ctx: llm.ChatContext) -> None:
        """Start searching with what the caller has said so far, so that the answer need not wait for the search.

        Nothing is saved by this. If the caller says more, the search is repeated.
        """
        words = _normalize_words(text)
        if words and self._find_by_words(words, chat_ctx) is None:
            self._start(text, words, chat_ctx)

    async def recall(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> str | None:
        """Return the recalled text for a message: "" if nothing is known, None if the memory failed."""
        recall = next((recall for recall in self._recalls if message.id in recall.message_ids), None)
        if recall is None:
            query = (message.text_content or "").strip()
            if not query:
                return ""
            words = _normalize_words(query)
            recall = self._find_by_words(words, chat_ctx) or self._start(query, words, chat_ctx, message.id)
            recall.message_ids.add(message.id)
        # Cancelling the wait, as for a discarded early answer, must not cancel the search: the next request uses it.
        found = await asyncio.shield(recall.task)
        return None if found is None else found.contextText.strip()

    def end_turn(self, message_id: str) -> None:
        """Drop all searches but that for this message, which is part of the conversation now."""
        kept = [recall for recall in self._recalls if message_id in recall.message_ids]
        self._recalls.clear()
        self._recalls.extend(kept)

    def _start(
        self, query: str, words: list[str], chat_ctx: llm.ChatContext, message_id: str | None = None
    ) -> _CachedRecall:
        # A turn is saved with the id of the caller's first message in it. Of an early search it is not known yet: its
        # trace belongs to the turn that is saved next.
        search = self._search(query, speaker_texts(chat_ctx), turn_id=message_id)
        task = asyncio.ensure_future(search)
        self._recalls.append(_CachedRecall(words, task))
        return self._recalls[-1]

    def _find_by_words(self, words: list[str], chat_ctx: llm.ChatContext) -> _CachedRecall | None:
        """Return the search for these words in this turn: the message it was made for is not in the conversation."""
        for recall in reversed(self._recalls):
            if recall.words == words and not any(item.id in recall.message_ids for item in chat_ctx.items):
                return recall
        return None


def _normalize_words(text: str | None) -> list[str]:
    """Return the words that LiveKit compares two transcripts by: without case and punctuation."""
    return _WORD_PATTERN.findall((text or "").casefold())
