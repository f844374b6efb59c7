"""Recalls once per message of the caller, no matter which hook of LiveKit asks first."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from livekit.agents import llm

from memoair_voice import SearchResult

SearchFunction = Callable[[str], Awaitable["SearchResult | None"]]
_WORD_PATTERN = re.compile(r"\w+")


@dataclass
class _CachedRecall:
    words: list[str] = field(repr=False)
    task: "asyncio.Task[SearchResult | None]" = field(repr=False)
    message_ids: set[str]


class RecallCache:
    """Searches with the caller's words, and keeps the latest search for further requests about the same turn.

    `prefetch` searches with what the caller has said so far, before their turn is complete. LiveKit may then ask
    several times: early, with an unconfirmed transcript in a message of its own (preemptive generation); when the turn
    is complete; and for each part of an answer around tool calls. Use it only in the thread of the event loop.
    """

    def __init__(self, search: SearchFunction) -> None:
        """Create a cache. ``search`` must not raise; it returns None if the memory failed."""
        self._search = search
        self._last: _CachedRecall | None = None

    def has_early_answer(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> bool:
        """Return whether an answer to the same words is already being generated, with the text recalled for them.

        In that case the search was made for another message, which never became part of the conversation.
        """
        last = self._last
        return (
            last is not None
            and bool(last.message_ids)
            and message.id not in last.message_ids
            and last.words == _normalize_words(message.text_content)
            and not _is_in_conversation(last, chat_ctx)
        )

    def prefetch(self, text: str, chat_ctx: llm.ChatContext) -> None:
        """Start searching with what the caller has said so far, so that the answer need not wait for the search.

        Nothing is saved by this. If the caller says more, the search is repeated.
        """
        words, last = _normalize_words(text), self._last
        if words and (last is None or last.words != words or _is_in_conversation(last, chat_ctx)):
            self._last = _CachedRecall(words, asyncio.ensure_future(self._search(text)), set())

    async def recall(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> str | None:
        """Return the recalled text for a message: "" if nothing is known, None if the memory failed."""
        last = self._last
        is_prefetched = (
            last is not None and not last.message_ids and last.words == _normalize_words(message.text_content)
        )
        if last is not None and (
            is_prefetched or message.id in last.message_ids or self.has_early_answer(message, chat_ctx)
        ):
            last.message_ids.add(message.id)
        else:
            query = (message.text_content or "").strip()
            if not query:
                return ""
            task = asyncio.ensure_future(self._search(query))
            last = self._last = _CachedRecall(_normalize_words(query), task, {message.id})
        # Cancelling the wait, as for a discarded early answer, must not cancel the search: the next request uses it.
        found = await asyncio.shield(last.task)
        if found is None:
            if self._last is last:
                self._last = None
            return None
        return found.contextText.strip()


def _is_in_conversation(recall: _CachedRecall, chat_ctx: llm.ChatContext) -> bool:
    """Return whether the message that was recalled for has become part of the conversation."""
    return any(item.id in recall.message_ids for item in chat_ctx.items)


def _normalize_words(text: str | None) -> list[str]:
    """Return the words that LiveKit compares two transcripts by: without case and punctuation."""
    return _WORD_PATTERN.findall((text or "").casefold())
