"""The recall for what the caller has said last: searched once for each thing they say."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pipecat.processors.aggregators.llm_context import LLMContext

from memoair_pipecat._context import RecalledContext, UserMessageTracker, make_recall_message, speaker_texts
from memoair_voice import SearchResult
from memoair_voice.integration import error_code

# If the caller speaks before their memory is loaded, the recall waits for it, for this share of the deadline.
_LOAD_WAIT_SHARE = 0.6

SearchFunction = Callable[[str, float, list[str]], Awaitable[SearchResult]]


class TurnRecall:
    """Searches with the caller's unanswered words, and keeps the result until they say something else.

    A failure of the memory is logged, and the turn then has no recalled text. Use it only in the thread of the event
    loop.
    """

    def __init__(
        self, search: SearchFunction, timeout_ms: float, log: logging.Logger, instructions: str | None = None
    ) -> None:
        """Create a recall.

        Args:
            search: Called with the query, the time limit in milliseconds and what the model's context holds.
            timeout_ms: How long a search may delay the model, in milliseconds.
            log: Where failures are logged.
            instructions: The system message that the processor adds, if it has one.
        """
        self._search = search
        self._timeout_ms = timeout_ms
        self._log = log
        self.instructions = instructions
        self._load_task: asyncio.Task[None] | None = None
        self._message: dict[str, str] | None = None  # the recalled text for the caller's last message
        self._question_message: Any = None  # that message
        self._speculative_query: str | None = None  # of an answer to words that are not confirmed yet

    def wait_for(self, load_task: "asyncio.Task[None]") -> None:
        """Let the first recall wait until this task has loaded the memory, for a part of its time."""
        self._load_task = load_task

    async def update(self, context: LLMContext, tracker: UserMessageTracker, *, is_speculative: bool) -> None:
        """Search if the caller has said something new in this context.

        Args:
            context: The context of the conversation, or a copy with words that are not confirmed yet.
            tracker: What of the context the caller has said.
            is_speculative: Whether it is such a copy.
        """
        question_message, query = tracker.find_question(context)
        if question_message is None or question_message is self._question_message:
            return
        # Words that are confirmed after a discarded early answer to them have been searched for already.
        if self._speculative_query is None or query != self._speculative_query:
            self._message = await self._recall(query, speaker_texts(context)) if query else None
        self._question_message = question_message
        self._speculative_query = query if is_speculative else None

    def insert(self, context: LLMContext) -> LLMContext:
        """Return a view of the context with instructions and recalled text, or the context itself without both."""
        if self._message is None and self.instructions is None:
            return context
        return RecalledContext(context, self._message, self.instructions)

    async def _recall(self, query: str, known_texts: list[str]) -> dict[str, str] | None:
        began_at = time.monotonic()
        try:
            if self._load_task is not None and not self._load_task.done():
                await asyncio.wait([self._load_task], timeout=self._timeout_ms / 1e3 * _LOAD_WAIT_SHARE)
            remaining_ms = self._timeout_ms - (time.monotonic() - began_at) * 1e3
            found = await self._search(query, max(1.0, remaining_ms), known_texts)
        except Exception as error:  # noqa: BLE001 - a full pool, a closed client: answer without memory
            waited_ms = (time.monotonic() - began_at) * 1e3
            self._log.warning(
                "nothing was recalled: action=recall_failed code=%s ms=%.0f", error_code(error), waited_ms
            )
            return None
        return make_recall_message(found.contextText) if found.contextText.strip() else None
