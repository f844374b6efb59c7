"""Throughput and memory of `memoair import` into a cloud on SQLite, compared with plain POSTs of the same batches.

The plain POSTs send what an import would send, encoded and compressed beforehand, with as many connections, to a server
of their own. Memory is the peak of the importing process, for all turns and for a tenth of them: it should be the same.
A batch holds turns of one caller only, so with many callers who call in turn, a batch is one call.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from cloud_servers import Target, start_servers
from rich.console import Console
from rich.table import Table
from urllib3 import HTTPConnectionPool
from workload import Speech

from memoair_cli.importing.batches import Batcher
from memoair_cli.importing.events import CallEvents
from memoair_transcripts import TranscriptTurn, read_transcript

_FIRST_CALL_AT = datetime(2025, 1, 6, 9, tzinfo=timezone.utc)
_TURNS_PER_CALL = 10
_POLL_INTERVAL_S = 0.02
_MEMOAIR = (sys.executable, "-c", "from memoair_cli.app import main; main()")


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=100_000, help="turns to import (default: %(default)s)")
    parser.add_argument(
        "--callers", type=int, nargs="+", default=[20, 2_000], help="callers, who call in turn (20 2000)"
    )
    parser.add_argument("--threads", type=int, default=4, help="concurrent batches (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memoair-import-") as folder:
        result = [
            _measure(Path(folder) / str(callers), arguments.turns, callers, arguments.threads)
            for callers in arguments.callers
        ]
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result, arguments)
    return 0


def _measure(folder: Path, turns: int, callers: int, threads: int) -> dict[str, float]:
    folder.mkdir()
    whole, part = folder / "calls.jsonl", folder / "tenth.jsonl"
    _write_calls(whole, turns, callers)
    with whole.open("rb") as lines, part.open("wb") as file:
        file.writelines(islice(lines, turns // 10))
    batches = list(_prepare_requests(whole))
    with start_servers(f"sqlite:///{folder / 'plain.db'}", folder, 1) as [target]:
        plain_s = _measure_posts_s(target, batches, threads)
    with start_servers(f"sqlite:///{folder / 'import.db'}", folder, 1) as [target]:
        first = _run_import(target, whole, folder, threads)
        again = _run_import(target, whole, folder, threads)
    with start_servers(f"sqlite:///{folder / 'tenth.db'}", folder, 1) as [target]:
        tenth = _run_import(target, part, folder, threads)
    assert first.summary["turns"] == {"kept": turns, "alreadyThere": 0, "refused": 0}, first.summary
    assert again.summary["turns"] == {"kept": 0, "alreadyThere": turns, "refused": 0}, again.summary
    return {
        "callers": callers,
        "turnsOfABatch": turns / len(batches),
        "turnsPerS": turns / first.summary["seconds"],
        "plainTurnsPerS": turns / plain_s,
        "ratio": first.summary["seconds"] / plain_s,
        "againS": again.summary["seconds"],
        "peakMb": first.peak_mb,
        "peakOfATenthMb": tenth.peak_mb,
    }


def _write_calls(path: Path, turns: int, callers: int) -> None:
    speech = Speech()
    with path.open("w", encoding="utf-8") as file:
        for number in range(turns):
            call = number // _TURNS_PER_CALL
            turn = {
                "userId": f"caller-{call % callers}",
                "sessionId": f"call-{call}",
                "occurredAt": (_FIRST_CALL_AT + timedelta(seconds=20 * number)).isoformat(),
                "userText": speech.sentence(12),
                "assistantText": speech.sentence(14),
                "userName": "Dana",
            }
            file.write(json.dumps(turn) + "\n")


def _prepare_requests(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the requests of an import: the user id and the compressed body."""
    events, batcher = CallEvents("proj_benchmark", path.name, _FIRST_CALL_AT), Batcher()

    def batches() -> Iterator[Any]:
        with path.open("rb") as file:
            for turn in read_transcript(file, path.name):
                assert isinstance(turn, TranscriptTurn)
                for event in events.for_turn(turn):
                    yield from batcher.add(event)
        for event in events.finish():
            yield from batcher.add(event)
        yield from batcher.flush()

    for batch in batches():
        content = b",".join(event.encode() for event in batch.events)
        yield batch.user_id, gzip.compress(b'{"events":[%b]}' % content, 1, mtime=0)


def _measure_posts_s(target: Target, batches: list[tuple[str, bytes]], threads: int) -> float:
    headers = {"Authorization": f"Bearer {target.key}", "X-Project-Id": target.project_id}
    headers |= {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with HTTPConnectionPool("127.0.0.1", target.port, maxsize=threads, timeout=120, retries=False) as pool:

        def post(batch: tuple[str, bytes]) -> None:
            user_id, body = batch
            user_headers = {**headers, "X-User-Id": user_id}
            response = pool.request("POST", "/v1/voice-sdk/events", body=body, headers=user_headers)
            assert response.status == 200, response.data
            assert not json.loads(response.data)["rejected"]

        began_at = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool_of_threads:
            for _ in pool_of_threads.map(post, batches):
                pass
        return time.perf_counter() - began_at


class _ImportRun(NamedTuple):
    summary: dict[str, Any]
    peak_mb: float


def _run_import(target: Target, file: Path, folder: Path, threads: int) -> _ImportRun:
    """Run an import in its own process, and return its summary and its peak memory."""
    environ = {
        **os.environ,
        "HOME": str(folder),
        "MEMOAIR_BASE_URL": target.url,
        "MEMOAIR_API_KEY": target.key,
        "MEMOAIR_PROJECT_ID": target.project_id,
    }
    state = folder / f"{file.stem}-{target.port}.state"
    command = [*_MEMOAIR, "import", str(file), "--threads", str(threads), "--state", str(state), "--json"]
    peak = 0
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        observed = psutil.Process(process.pid)
        # Polled, because the system's own figure after the end (`ru_maxrss`) is at least this process's memory.
        while process.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, observed.memory_info().rss)
            time.sleep(_POLL_INTERVAL_S)
        assert process.stdout is not None
        output = process.stdout.read()
    assert process.returncode == 0, output
    return _ImportRun(json.loads(output), peak / 1e6)


def _print(result: list[dict[str, float]], arguments: argparse.Namespace) -> None:
    table = Table(
        f"{arguments.turns:,} turns, {os.cpu_count()} CPUs", *(f"{figures['callers']:,} callers" for figures in result)
    )
    rows = [
        ("turns per batch, mean", "turnsOfABatch", "{:.1f}"),
        ("import", "turnsPerS", "{:,.0f} turns/s"),
        ("plain POSTs of the same batches", "plainTurnsPerS", "{:,.0f} turns/s"),
        ("import / plain", "ratio", "{:.2f}x"),
        ("second run, nothing new", "againS", "{:.1f} s"),
        ("peak memory of the import", "peakMb", "{:.0f} MB"),
        ("peak memory with a tenth of the turns", "peakOfATenthMb", "{:.0f} MB"),
    ]
    for label, name, template in rows:
        table.add_row(label, *(template.format(figures[name]) for figures in result))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
