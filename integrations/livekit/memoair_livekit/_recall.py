"""What is recalled for a message of the caller: once, whichever hook of LiveKit asks first."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from livekit.agents import llm

from memoair_voice import SearchResult

Search = Callable[[str], Awaitable["SearchResult | None"]]
_WORD = re.compile(r"\w+")


@dataclass
class _Recall:
    words: list[str] = field(repr=False)
    task: "asyncio.Task[SearchResult | None]" = field(repr=False)
    message_ids: set[str]


class Recalls:
    """Searches with the caller's words, and remembers the last search for those who ask again about the same turn.

    LiveKit may ask three times: early, with a transcript that is not confirmed yet and a message of its own
    (preemptive generation); when the turn is complete; and for each part of an answer around tool calls. For the thread
    of the event loop only.
    """

    def __init__(self, search: Search) -> None:
        """``search`` never raises; None is a memory that failed."""
        self._search = search
        self._last: _Recall | None = None

    def is_answering(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> bool:
        """Whether an answer to these words is being generated already, with what was recalled for them.

        Then the search was for another message, which never became part of the conversation.
        """
        last = self._last
        return (
            last is not None
            and message.id not in last.message_ids
            and last.words == _words(message)
            and not any(item.id in last.message_ids for item in chat_ctx.items)
        )

    async def text_for(self, message: llm.ChatMessage, chat_ctx: llm.ChatContext) -> str | None:
        """What matters for the message; "" where nothing is known, None where the memory failed."""
        last = self._last
        if last is not None and (message.id in last.message_ids or self.is_answering(message, chat_ctx)):
            last.message_ids.add(message.id)
        else:
            query = (message.text_content or "").strip()
            if not query:
                return ""
            task = asyncio.ensure_future(self._search(query))
            last = self._last = _Recall(_words(message), task, {message.id})
        # Whoever gives up waiting, as an early answer that is thrown away, leaves the search to the next who asks.
        found = await asyncio.shield(last.task)
        if found is None:
            if self._last is last:
                self._last = None
            return None
        return found.contextText.strip()


def _words(message: llm.ChatMessage) -> list[str]:
    """What LiveKit compares two transcripts by: neither case nor punctuation."""
    return _WORD.findall((message.text_content or "").casefold())
