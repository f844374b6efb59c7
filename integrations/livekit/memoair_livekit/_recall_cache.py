"""What is recalled for a message of the caller: once, whichever hook of LiveKit asks first."""

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
    """Searches with the caller's words, and remembers the last search for those who ask again about the same turn.

    What the caller has said so far is searched for before his turn is complete (`expect`). Then LiveKit may ask three
    times: early, with a transcript that is not confirmed yet and a message of its own (preemptive generation); when the
    turn is complete; and for each part of an answer around tool calls. For the thread of the event loop only.
    """

    def __init__(self, search: SearchFunction) -> None:
        """``search`` never raises; None is a memory that failed."""
        self._search = search
        self._last: _CachedRecall | None = None

    def has_early_answer(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> bool:
        """Whether an answer to these words is being generated already, with what was recalled for them.

        Then the search was for another message, which never became part of the conversation.
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
        """Search for what the caller has said so far, before his turn is complete: then the answer waits for nothing.

        Nothing is stored. Where he says more, it is searched again.
        """
        words, last = _normalize_words(text), self._last
        if words and (last is None or last.words != words or _is_in_conversation(last, chat_ctx)):
            self._last = _CachedRecall(words, asyncio.ensure_future(self._search(text)), set())

    async def recall(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> str | None:
        """What matters for the message; "" where nothing is known, None where the memory failed."""
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
        # Whoever gives up waiting, as an early answer that is thrown away, leaves the search to the next who asks.
        found = await asyncio.shield(last.task)
        if found is None:
            if self._last is last:
                self._last = None
            return None
        return found.contextText.strip()


def _is_in_conversation(recall: _CachedRecall, chat_ctx: llm.ChatContext) -> bool:
    """Whether the turn that it was for has become part of the conversation."""
    return any(item.id in recall.message_ids for item in chat_ctx.items)


def _normalize_words(text: str | None) -> list[str]:
    """What LiveKit compares two transcripts by: neither case nor punctuation."""
    return _WORD_PATTERN.findall((text or "").casefold())
