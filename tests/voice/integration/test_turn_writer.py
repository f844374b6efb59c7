"""The turn writer: in order, again while there is no room, never longer than the end of a call may take."""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import pytest

from memoair_voice import MemoAirVoiceMemoryError
from memoair_voice.integration import AssembledTurn, TurnWriter, turn_writer

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (
    AssembledTurn(user_text=text, assistant_text="Yes.", started_at=datetime.now(timezone.utc), turn_id=text)
    for text in ("One.", "Two.", "Three.")
)
FULL = MemoAirVoiceMemoryError("pool.exhausted", "every runtime of the pool is in use")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ScriptedClient:
    """Answers each save with the next of its outcomes: an error, a duration, or None; then saves at once."""

    def __init__(self, *outcomes: Exception | float | None) -> None:
        self.outcomes = list(outcomes)
        self.tried: list[str] = []
        self.saved: list[dict[str, Any]] = []

    async def save_response(self, **turn: Any) -> None:
        self.tried.append(turn["user_text"])
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        await asyncio.sleep(outcome or 0)
        self.saved.append(turn)


def writer_of(client: ScriptedClient, *turns: AssembledTurn) -> TurnWriter:
    log = logging.getLogger("memoair_test")
    writer = TurnWriter(client, {"id": "ada"}, framework="test", log=log, lost_action="lost")  # type: ignore[arg-type]
    for turn in turns:
        writer.add(turn)
    return writer


async def test_turns_are_saved_in_order_while_the_call_goes_on() -> None:
    client = ScriptedClient(0.02)
    writer = writer_of(client, ONE, TWO)
    task = asyncio.create_task(writer.run())
    await writer.wait_drained()
    assert [turn["turn_id"] for turn in client.saved] == ["One.", "Two."]
    assert client.saved[0]["user"] == {"id": "ada"}
    assert client.saved[0]["metadata"]["framework"] == "test"
    writer.add(THREE)
    writer.stop(1.0)
    await asyncio.wait_for(task, 10)
    assert [turn["turn_id"] for turn in client.saved] == ["One.", "Two.", "Three."]


async def test_a_turn_waits_for_room_and_the_next_ones_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_writer, "_BACKOFF", turn_writer.Backoff(0.01, 0.02, jitter=0))
    client = ScriptedClient(FULL, MemoAirVoiceMemoryError("pool.port_exhausted", "every port is in use"), FULL)
    writer = writer_of(client, ONE, TWO)
    writer.stop(10.0)
    await asyncio.wait_for(writer.run(), 10)
    assert client.tried == ["One."] * 4 + ["Two."]
    assert [turn["turn_id"] for turn in client.saved] == ["One.", "Two."]


@pytest.mark.parametrize("error", [MemoAirVoiceMemoryError("pool.closed", "closed"), ValueError("One. is no turn")])
async def test_a_turn_that_can_never_be_saved_is_logged_by_its_code_and_the_next_are_saved(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    client = ScriptedClient(error)
    writer = writer_of(client, ONE, TWO)
    writer.stop(1.0)
    await asyncio.wait_for(writer.run(), 10)
    assert [turn["turn_id"] for turn in client.saved] == ["Two."]
    [message] = caplog.messages
    assert message == f"a turn is lost: action=lost code={getattr(error, 'code', 'ValueError')}"


async def test_the_end_waits_no_longer_for_room_than_it_may() -> None:
    client = ScriptedClient(*[FULL] * 1_000)
    writer = writer_of(client, ONE, TWO)
    task = asyncio.create_task(writer.run())
    began_at = time.monotonic()
    writer.stop(0.3)
    writer.stop(60.0)  # the first deadline counts
    await asyncio.wait_for(task, 10)
    assert time.monotonic() - began_at < 5
    assert len(writer) == 2
    await asyncio.wait_for(writer.wait_drained(), 1)


async def test_a_save_that_is_cancelled_is_repeated() -> None:
    client = ScriptedClient(60.0)
    writer = writer_of(client, ONE)
    task = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert len(writer) == 1
    writer.stop(1.0)
    await asyncio.wait_for(writer.run(), 10)
    assert [turn["turn_id"] for turn in client.saved] == ["One."]
