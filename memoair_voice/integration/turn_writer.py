"""Saves assembled turns in the background, one after another."""

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memoair_protocol.backoff import Backoff
from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError
from memoair_voice.integration.errors import error_code
from memoair_voice.integration.turn_assembler import AssembledTurn

# There is no room in the pool, in the outbox or on the disk now, but may be in a moment. All else that fails for a
# while, the client retries.
_TRANSIENT_CODES = frozenset(
    {"pool.exhausted", "pool.port_exhausted", "pool.outbox_full", "runtime.storage_unavailable"}
)
_BACKOFF = Backoff(0.1, 2.0, jitter=0)


class TurnWriter:
    """Saves turns in the order in which they were added, so that a slow disk does not delay the conversation.

    The owner runs `run` in a task. If that task is cancelled, the turn in progress stays in the queue, and `run` may be
    called again. Use it only in the thread of one event loop.
    """

    def __init__(
        self,
        client: MemoAirVoiceClient,
        user: Mapping[str, Any],
        *,
        framework: str,
        log: logging.Logger,
        lost_action: str,
        lost_level: int = logging.ERROR,
        session_id: str | None = None,
    ) -> None:
        """Create a writer.

        Args:
            client: The client that saves the turns.
            user: The caller, ``{"id", "name", "metadata"}``.
            framework: The name of the framework, for the metadata of the turns.
            log: Where a lost turn is logged.
            lost_action: The ``action=`` code of that message.
            lost_level: Its level.
            session_id: The id of the call, within which the ids of turns count.
        """
        self._client = client
        self._user = user
        self._framework = framework
        self._log = log
        self._lost_action = lost_action
        self._lost_level = lost_level
        self._session_id = session_id
        self.has_saved = False  # whether a turn has reached the client
        self._queue: deque[AssembledTurn] = deque()
        self._has_work = asyncio.Event()
        self._is_drained = asyncio.Event()
        self._is_drained.set()
        self._deadline: float | None = None  # once the call is over

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, turn: AssembledTurn) -> None:
        """Queue a turn to be saved. Returns at once.

        A turn without an id gets one here, so that a save that is repeated counts once.
        """
        self._queue.append(turn if turn.turn_id is not None else replace(turn, turn_id=uuid.uuid4().hex))
        self._is_drained.clear()
        self._has_work.set()

    def stop(self, timeout_s: float) -> None:
        """Let `run` return once everything is saved. A turn that finds no room is retried for at most ``timeout_s``."""
        if self._deadline is None:
            self._deadline = time.monotonic() + timeout_s
        self._has_work.set()

    async def wait_drained(self) -> None:
        """Wait until the turns queued so far are saved or lost."""
        await self._is_drained.wait()

    async def run(self) -> None:
        """Save turns until `stop` was called and the queue is empty, or its time is up."""
        while True:
            while self._queue:
                if not await self._save_turn(self._queue[0]):
                    self._is_drained.set()
                    return
                self._queue.popleft()  # only now: a cancelled save is repeated, and its turn id counts once
            self._is_drained.set()
            if self._deadline is not None:
                return
            self._has_work.clear()
            await self._has_work.wait()

    async def _save_turn(self, turn: AssembledTurn) -> bool:
        """Save one turn, retrying while the pool has no room. Return False if the time for that is up."""
        failures = 0
        while True:
            try:
                # A result of None is not a failure: the client saves the turn again by itself.
                await self._client.save_response(
                    user=self._user, session_id=self._session_id, **turn.save_arguments(self._framework)
                )
            except MemoAirVoiceMemoryError as error:
                if error.code not in _TRANSIENT_CODES:
                    self._log_lost(error)
                    return True
            except Exception as error:  # noqa: BLE001 - whatever the error is, the next turns must be saved
                self._log_lost(error)
                return True
            else:
                self.has_saved = True
                return True
            failures += 1
            pause_s = _BACKOFF.pause_s(failures)
            if self._deadline is not None and time.monotonic() + pause_s > self._deadline:
                return False
            await asyncio.sleep(pause_s)

    def _log_lost(self, error: BaseException) -> None:
        message = "a turn is lost: action=%s code=%s"
        self._log.log(self._lost_level, message, self._lost_action, error_code(error))
