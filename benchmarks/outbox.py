"""The client's outbox: turns that a runtime could not take at once.

Four figures, with real runtimes on this machine: how long a caller whose log is free waits behind callers whose logs
are locked; how long a caller who speaks steadily needs to catch up after a stall; what happens to the turn after the
last one that there is room for; and how many of the turns that a killed client had promised the next client saves.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
from rich.console import Console
from rich.table import Table

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

_PROJECT = "bench"
_TIMEOUT_S = 120.0


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locked", type=int, default=12, help="callers whose logs are locked (%(default)s)")
    parser.add_argument("--rate", type=float, default=300.0, help="turns a second of the steady caller (%(default)s)")
    parser.add_argument("--stall", type=float, default=1.5, help="seconds of the stall (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the steady caller speaks (%(default)s)")
    parser.add_argument("--killed", type=int, default=500, help="turns that a killed client leaves (%(default)s)")
    parser.add_argument("--full", action="store_true", help="fill the outbox, too (some ten seconds)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--defer", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.defer:
        return _defer_and_wait(Path(arguments.defer[0]), int(arguments.defer[1]))
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="memoair-outbox-") as folder:
        root = Path(folder)
        result |= _measure_wait_behind_locked(root / "locked", arguments.locked)
        result |= _measure_catching_up(root / "steady", arguments.rate, arguments.stall, arguments.seconds)
        result |= _measure_killed(root / "killed", arguments.killed)
        if arguments.full:
            result |= _measure_full(root / "full")
    if arguments.json:
        print(json.dumps(result))
        return 0
    table = Table(f"{os.cpu_count()} CPUs", "result")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console().print(table)
    return 0


def _new_client(root: Path, **options: Any) -> MemoAirVoiceClientSync:
    return MemoAirVoiceClientSync(
        api_key="key",
        project_id=_PROJECT,
        agent_id="bench",
        cloud_base_url=None,
        storage_root=str(root),
        runtime_port_range=(21_000, 21_999),
        **options,
    )


def _save(client: MemoAirVoiceClientSync, caller: str, turn_id: str) -> str | None:
    return client.save_response(
        user={"id": caller}, user_text=f"The word is {turn_id}.", assistant_text="Noted.", turn_id=turn_id
    )


@contextlib.contextmanager
def _locked(root: Path, callers: Sequence[str]) -> Iterator[None]:
    """Hold the locks of the callers' session logs, as a disk that hangs or a stopped process would."""
    with contextlib.ExitStack() as stack:
        for caller in callers:
            for path in root.glob(f"*/{caller}/*/session.lock"):
                stack.enter_context(filelock.FileLock(path))
        yield


def _count_turns(root: Path, caller: str) -> int:
    logs = root.glob(f"*/{caller}/*/session.jsonl")
    return sum(log.read_bytes().count(b'"type":"turn"') for log in logs)


def _wait_until(is_true: Any) -> float:
    """Return how many seconds it took; infinity if it was too long."""
    began_at = time.monotonic()
    while not is_true():
        if time.monotonic() - began_at > _TIMEOUT_S:
            return float("inf")
        time.sleep(0.005)
    return time.monotonic() - began_at


def _measure_wait_behind_locked(root: Path, count: int) -> dict[str, Any]:
    blocked = [f"blocked-{number}" for number in range(count)]
    with _new_client(root) as client:
        for caller in (*blocked, "free"):
            client.load_index(user={"id": caller})
            assert _save(client, caller, "t0"), "the machine is too busy"
        with _locked(root, blocked):
            with _locked(root, ["free"]):
                threads = [threading.Thread(target=_save, args=(client, caller, "t1")) for caller in (*blocked, "free")]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                time.sleep(3.0)  # all have failed some times
            waited_s = _wait_until(lambda: _count_turns(root, "free") == 2)
        _wait_until(lambda: not client.stats()["pending_saves"])
    return {f"a free caller behind {count} locked ones, s": round(waited_s, 2)}


def _measure_catching_up(root: Path, rate: float, stall_s: float, seconds: float) -> dict[str, Any]:
    with _new_client(root) as client:
        client.load_index(user={"id": "steady"})
        assert _save(client, "steady", "t0"), "the machine is too busy"
        stalled, released_at = threading.Event(), [0.0]

        def stall() -> None:
            with _locked(root, ["steady"]):
                stalled.set()
                time.sleep(stall_s)
            released_at[0] = time.monotonic()

        staller = threading.Thread(target=stall)
        staller.start()
        stalled.wait()
        began_at, number, deferred, caught_up_at = time.monotonic(), 0, 0, 0.0
        while (due_at := began_at + number / rate) < began_at + seconds:
            time.sleep(max(0.0, due_at - time.monotonic()))
            number += 1
            if _save(client, "steady", f"t{number}") is None:
                deferred += 1
                caught_up_at = 0.0
            else:
                caught_up_at = caught_up_at or time.monotonic()
        staller.join()
        left = client.stats()["pending_saves"]
        drained_s = _wait_until(lambda: not client.stats()["pending_saves"])
    return {
        f"turns at {rate:.0f}/s": number,
        f"deferred after a stall of {stall_s} s": deferred,
        "caught up after the stall, s": round(caught_up_at - released_at[0], 2) if caught_up_at else "never",
        "left at the end": left,
        "until they were saved, s": round(drained_s, 2),
    }


def _measure_full(root: Path) -> dict[str, Any]:
    with _new_client(root, runtime_binary="/bin/false") as client:
        for number in range(100_000):
            caller = f"caller-{number % 4}"
            try:
                event_id = _save(client, caller, f"t{number}")
            except MemoAirVoiceMemoryError as error:
                return {"the turn after the last that fits": f"number {number + 1:,} raises {error.code}"}
            if event_id is None and client._outbox.lost:  # noqa: SLF001 - `stats` asks every runtime
                return {"the turn after the last that fits": f"number {number + 1:,} returns None and is lost"}
    return {"the turn after the last that fits": "there is no limit"}


def _defer_and_wait(root: Path, count: int) -> int:
    """Promise turns that no runtime takes, say so, and wait to be killed."""
    client = _new_client(root, runtime_binary="/bin/false")
    for number in range(count):
        _save(client, "killed", f"t{number}")
    print("deferred", flush=True)
    time.sleep(_TIMEOUT_S)
    return 1


def _measure_killed(root: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--defer", str(root), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    with _new_client(root) as client:
        began_at = time.monotonic()
        client.load_index(user={"id": "another"})
        deadline = began_at + 15.0
        while time.monotonic() < deadline and _count_turns(root, "killed") < count:
            time.sleep(0.01)
        saved = _count_turns(root, "killed")
        took_s = time.monotonic() - began_at
    return {
        f"of {count} turns of a killed client, saved by the next one": saved,
        "within, s": round(took_s, 2) if saved == count else "never",
    }


if __name__ == "__main__":
    sys.exit(main())
