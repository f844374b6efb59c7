"""Saves turns in the background, one after another."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from memoair_pipecat._log import error_code, log
from memoair_pipecat._turn_assembler import PipecatTurn
from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError

# The pool has no room or port now, but may have one in a moment.
_TRANSIENT_CODES = frozenset({"pool.exhausted", "pool.port_exhausted"})
_RETRY_PAUSE_S = 0.25


class TurnWriter:
    """Saves turns in the order in which they were added. The owner runs `run` in a task."""

    def __init__(self, client: MemoAirVoiceClient, user: Mapping[str, Any]) -> None:
        self._client = client
        self._user = user
        self._queue: deque[PipecatTurn] = deque()
        self._has_work = asyncio.Event()
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, turn: PipecatTurn) -> None:
        """Queue a turn to be saved. Returns immediately."""
        self._queue.append(turn)
        self._has_work.set()

    def stop(self) -> None:
        """Let `run` return once everything is saved."""
        self._is_stopping = True
        self._has_work.set()

    async def run(self) -> None:
        """Save turns until `stop` was called and the queue is empty."""
        while self._queue or not self._is_stopping:
            if not self._queue:
                self._has_work.clear()
                await self._has_work.wait()
                continue
            await self._save_turn(self._queue[0])
            self._queue.popleft()

    async def _save_turn(self, turn: PipecatTurn) -> None:
        """Save one turn. Give it up if another attempt cannot help."""
        while True:
            try:
                # A result of None is not a failure: the client saves the turn again by itself.
                await self._client.save_response(
                    user_text=turn.user_text,
                    assistant_text=turn.assistant_text,
                    user=self._user,
                    tool_calls=[{"name": name} for name in turn.tool_names],
                    metadata={
                        "framework": "pipecat",
                        "interrupted": turn.is_interrupted,
                        "occurredAt": turn.started_at.isoformat(),
                    },
                )
            except MemoAirVoiceMemoryError as error:
                if error.code in _TRANSIENT_CODES:
                    await asyncio.sleep(_RETRY_PAUSE_S)
                    continue
                log.error("a turn is lost: action=save_failed code=%s", error.code)
            except Exception as error:  # noqa: BLE001 - whatever the error is, the next turns must be saved
                log.error("a turn is lost: action=save_failed code=%s", error_code(error))
            return
