"""Cost of a backlog: the time until the cloud has all turns of an outage, and what live searches pay for it.

A storage root is filled with callers who each said one turn that was not sent, and a client starts that serves another
caller. The cloud runs on the same machine, on SQLite with its worker, which is the worst case: it shares the processors
with the searches. While the backlog is sent, its process is stopped and continued in turns (SIGSTOP, SIGCONT): searches
of both kinds alternate in one run, so that other work on the machine slows down both alike. The time until the cloud
has everything counts only the turns in which the process runs.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from cloud_servers import Target, start_servers
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from workload import Speech

from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.models import CallEvent
from memoair_protocol.enums import EventType
from memoair_protocol.timestamps import utc_now
from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.backlog_status import read_status
from memoair_runtime.storage.events import EventOrigin, encode_line, new_event
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync

_PORTS = (20_000, 21_999)
_TIMEOUT_MS = 10_000
_LIVE_TURNS = 200
_START_TIMEOUT_S = 120.0


def main() -> int:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=10_000, help="callers with an unsent turn (default: 10000)")
    parser.add_argument("--sending-s", type=float, default=6.0, help="seconds of each turn with sending (default: 6)")
    parser.add_argument("--stopped-s", type=float, default=3.0, help="seconds of each turn without (default: 3)")
    parser.add_argument("--max-s", type=float, default=3600.0, help="stop after so many seconds (default: 3600)")
    parser.add_argument("--pause-ms", type=float, default=20.0, help="pause between two searches (default: 20)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memoair-backlog-") as name:
        folder = Path(name)
        with start_servers(f"sqlite:///{folder / 'cloud.db'}", folder, 1) as [target]:
            write_backlog(folder / "storage", target, arguments.callers)
            result = measure(folder, target, arguments)
    print(json.dumps(result)) if arguments.json else _print(result)
    return 0


def write_backlog(root: Path, target: Target, callers: int) -> None:
    """Write the logs of callers whose only turn was not sent."""
    speech, origin, now = Speech(), EventOrigin(cloud_id_of(target.url), target.agent_id), utc_now()
    for number in range(callers):
        user_id = f"waiting-{number}"
        start = new_event(EventType.SESSION_START, "call", 1, now, {"user": {"id": user_id}, "metadata": {}}, origin)
        said = {"turnId": "1", "userText": speech.sentence(15), "assistantText": speech.sentence(15)}
        turn = new_event(EventType.TURN, "call", 2, now, {**said, "toolCalls": [], "metadata": {}}, origin)
        session = UserFolder(root, target.project_id, user_id).create_session("call")
        session.log.write_bytes(encode_line(start) + encode_line(turn))


def measure(folder: Path, target: Target, arguments: argparse.Namespace) -> dict[str, Any]:
    """Send the backlog, and measure searches with and without it in turns."""
    status_file = ProjectFolder(folder / "storage", target.project_id).backlog_status(cloud_id_of(target.url))
    speech, times_ms = Speech(), {True: list[float](), False: list[float]()}
    running_s = 0.0
    with MemoAirVoiceClientSync(
        api_key=target.key,
        project_id=target.project_id,
        agent_id=target.agent_id,
        cloud_base_url=target.url,
        storage_root=str(folder / "storage"),
        runtime_port_range=_PORTS,
    ) as client:
        user = {"id": "live", "name": "Dana"}
        client.load_index(user=user, timeout_s=60)
        for number in range(_LIVE_TURNS):
            said, answer = speech.sentence(15), speech.sentence(15)
            client.save_response(user_text=said, assistant_text=answer, turn_id=str(number), user=user)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while read_status(status_file).users < arguments.callers * 0.9:  # it has counted, and has begun
            if time.monotonic() > deadline:
                raise RuntimeError("the backlog was not found in time")
            time.sleep(0.05)
        first_users = read_status(status_file).users
        sender = psutil.Process(int(read_status(status_file).pid or 0))
        cpu_before = _cpu_s(sender)
        began_at = time.monotonic()
        while (
            read_status(status_file).users > 1 and time.monotonic() - began_at < arguments.max_s
        ):  # the live caller may have an unsent turn at any moment
            with _stopped(sender):
                _search(client, user, speech, arguments.stopped_s, arguments.pause_ms, times_ms[False])
            slice_began_at = time.monotonic()
            _search(client, user, speech, arguments.sending_s, arguments.pause_ms, times_ms[True])
            running_s += time.monotonic() - slice_began_at
        cpu_s = _cpu_s(sender) - cpu_before
        total_s = time.monotonic() - began_at
        arrived_users = first_users - read_status(status_file).users
    engine = make_engine(f"sqlite:///{folder / 'cloud.db'}")
    with Session(engine) as session:
        waiting = CallEvent.user_id.like("waiting-%"), CallEvent.type == EventType.TURN.value
        arrived = session.scalar(select(func.count()).select_from(CallEvent).where(*waiting))
    engine.dispose()
    medians = {is_sending: statistics.median(times) for is_sending, times in times_ms.items()}
    return {
        "callers": arguments.callers,
        "arrived": arrived,
        "sendingS": running_s,
        "callersPerS": arrived_users / running_s,
        "withPausesS": total_s,
        "senderCpuS": cpu_s,
        "searchesEach": min(map(len, times_ms.values())),
        "searchMs": medians[False],
        "searchWhileSendingMs": medians[True],
        "ratio": medians[True] / medians[False],
        "p95Ratio": _p95(times_ms[True]) / _p95(times_ms[False]),
    }


def _search(
    client: MemoAirVoiceClientSync,
    user: dict[str, str],
    speech: Speech,
    duration_s: float,
    pause_ms: float,
    times_ms: list[float],
) -> None:
    end_at = time.monotonic() + duration_s
    while time.monotonic() < end_at:
        query = speech.sentence(8)
        began_at = time.perf_counter()
        client.search_memory(query, user=user, timeout_ms=_TIMEOUT_MS)
        times_ms.append((time.perf_counter() - began_at) * 1e3)
        time.sleep(random.uniform(0.5, 1.5) * pause_ms / 1e3)  # out of step with the sender


@contextmanager
def _stopped(process: psutil.Process) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _p95(times_ms: list[float]) -> float:
    return statistics.quantiles(times_ms, n=20)[-1]


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['callers']:,} callers with one unsent turn each")
    for column in ("", "measured", "target"):
        table.add_column(column)
    table.add_row("turns in the cloud at the end", f"{result['arrived']:,}", f"{result['callers']:,}")
    table.add_row(
        "time until the cloud has all", f"{result['sendingS']:,.0f} s, {result['callersPerS']:.0f} callers/s", ""
    )
    table.add_row("processor time of the sender", f"{result['senderCpuS']:.1f} s", "")
    table.add_row(
        "search, median, without and while sending",
        f"{result['searchMs']:.2f} and {result['searchWhileSendingMs']:.2f} ms",
        "",
    )
    ratios = f"{result['ratio']:.2f}; {result['p95Ratio']:.2f}"
    table.add_row("ratio of the medians; of the 95th percentiles", ratios, "1.2")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
