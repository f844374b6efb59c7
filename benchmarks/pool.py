"""Cost of a pool of runtimes: time to a new caller's first result, memory, concurrency, a durable save, asyncio.

Each figure is printed beside its reference from the same run. Memory is the proportional set size (PSS) of the fork
server and all runtimes, divided by the number of runtimes; where the system does not report it, the private memory
(USS).
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from cloud_servers import start_servers
from rich.console import Console
from rich.table import Table
from workload import Speech, measure_disk_ms, measure_floor_times_ms, measure_median_ms, write_documents

from memoair_voice import MemoAirVoiceClient
from memoair_voice_sync import MemoAirVoiceClientSync

_PORTS = (20_000, 21_999)
_TIMEOUT_MS = 10_000
_SAVE_REPLY_BYTES = 60


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="documents of the organization (default: 10000)")
    parser.add_argument("--users", type=int, default=100, help="new callers, one after another (default: 100)")
    parser.add_argument("--sharing", type=int, default=50, help="callers whose memory is measured (default: 50)")
    parser.add_argument("--live", type=int, default=500, help="runtimes alive at once (default: 500)")
    parser.add_argument("--threads", type=int, default=32, help="threads, each with its own caller (default: 32)")
    parser.add_argument("--calls", type=int, default=300, help="calls for each median (default: 300)")
    parser.add_argument("--cloud", action="store_true", help="connect the runtimes to a cloud, started on this machine")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memoair-pool-") as folder:
        org_file = Path(folder) / "org.jsonl"
        write_documents(org_file, Speech(), arguments.documents)
        with _start_cloud(Path(folder), enabled=arguments.cloud) as cloud:
            bench = _Bench(Path(folder), org_file, arguments, cloud)
            result = {
                **bench.measure_new_users(),
                **bench.measure_memory(),
                **bench.measure_many_alive(),
                **bench.measure_saves(),
                **bench.measure_threads(),
                **asyncio.run(bench.measure_asyncio()),
            }
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result, arguments)
    return 0


class _Bench:
    def __init__(self, folder: Path, org_file: Path, arguments: argparse.Namespace, cloud: dict[str, Any]) -> None:
        self._folder = folder
        self._cloud_options = cloud
        self._org_file = org_file
        self._arguments = arguments
        self._speech = Speech()

    def measure_new_users(self) -> dict[str, float]:
        """Measure the time from an unknown caller to the result of the first search, in a pool of the default size."""
        with self._make_client(max_concurrent_users=20) as client:
            client.load_index(user={"id": "first"}, timeout_s=60)

            def call(number: int) -> None:
                user = {"id": f"new-{number}", "name": "Dana"}
                result = client.search_memory(self._speech.sentence(8), user=user, timeout_ms=_TIMEOUT_MS)
                assert result.trace["lanes"]["permanent"]["status"] == "ok", result.trace

            began_at = time.perf_counter()
            median = measure_median_ms(call, self._arguments.users)
            return {"newUserMs": median, "newUsersTotalS": time.perf_counter() - began_at}

    def measure_memory(self) -> dict[str, float]:
        """Measure the memory of runtimes that share the organization's index, each after one save and one search."""
        count = self._arguments.sharing
        with self._make_client(max_concurrent_users=count) as client:
            for number in range(count):
                self._warm_up_caller(client, number)
            runtimes = [psutil.Process(runtime["pid"]) for runtime in client.stats()["runtimes"]]
            fork_server = [
                child
                for child in psutil.Process().children()
                if "memoair_runtime.fork_server" in " ".join(child.cmdline())
            ]
            return {"memoryMbEach": sum(map(_memory_bytes, runtimes + fork_server)) / count / 1e6}

    def measure_many_alive(self) -> dict[str, float]:
        """Start many runtimes, and search in each once all of them are alive."""
        count = self._arguments.live
        if not count:
            return {}
        with self._make_client(max_concurrent_users=count, with_org=False) as client:
            for number in range(count):
                client.load_index(user={"id": f"caller-{number}"}, timeout_s=60)
            answered = 0
            for number in range(count):
                result = client.search_memory("boots", user={"id": f"caller-{number}"}, timeout_ms=_TIMEOUT_MS)
                answered += not result.trace["degraded"]
            pids = {runtime["pid"] for runtime in client.stats()["runtimes"]}
        return {"live": len(pids), "liveAnswered": answered}

    def measure_saves(self) -> dict[str, float]:
        """Measure a save through the client, and its floor: a reply of the same size, a write and an fdatasync."""
        calls, speech = self._arguments.calls, self._speech
        turns = [(speech.sentence(15), speech.sentence(15)) for _ in range(calls)]
        with self._make_client() as client:
            user = {"id": "saver", "name": "Dana"}
            client.load_index(user=user, timeout_s=60)
            save_ms = measure_median_ms(
                lambda i: client.save_response(user_text=turns[i][0], assistant_text=turns[i][1], user=user), calls
            )
            line = next(Path(self._folder).glob("root/*/saver/*/session.jsonl")).read_bytes().splitlines()[-1]
        turn = {"userText": turns[0][0], "assistantText": turns[0][1]}
        floor_ms = statistics.median(measure_floor_times_ms(_SAVE_REPLY_BYTES, turn, calls)) + measure_disk_ms(
            self._folder, line, calls
        )
        return {"saveMs": save_ms, "saveFloorMs": floor_ms, "saveRatio": save_ms / floor_ms}

    def measure_threads(self) -> dict[str, float]:
        """Measure searches of many threads, each with its own caller, and of one thread."""
        count, calls = self._arguments.threads, self._arguments.calls
        with self._make_client(max_concurrent_users=count) as client:
            for number in range(count):
                self._warm_up_caller(client, number)

            def time_searches(number: int) -> list[float]:
                user, times = {"id": f"caller-{number}"}, []
                for _ in range(calls):
                    began_at = time.perf_counter()
                    client.search_memory(self._speech.sentence(8), user=user, timeout_ms=_TIMEOUT_MS)
                    times.append((time.perf_counter() - began_at) * 1e3)
                return times

            alone = statistics.median(time_searches(0))
            with ThreadPoolExecutor(count) as threads:
                began_at = time.perf_counter()
                times = [
                    time_ms for thread_times in threads.map(time_searches, range(count)) for time_ms in thread_times
                ]
                total_s = time.perf_counter() - began_at
        return {
            "oneThreadMs": alone,
            "manyThreadsMs": statistics.median(times),
            "manyThreadsPerS": len(times) / total_s,
            "oneThreadPerS": 1e3 / alone,
        }

    async def measure_asyncio(self) -> dict[str, float]:
        """Measure a search by the async client and the same one by the sync client, alternately."""
        calls, user = self._arguments.calls, {"id": "async"}
        awaited, called = [], []
        async with MemoAirVoiceClient(**self._client_options()) as client, _async_context(self._make_client()) as sync:
            await client.load_index(user=user, timeout_s=60)
            for _ in range(calls):
                question = self._speech.sentence(8)
                began_at = time.perf_counter()
                await client.search_memory(question, user=user, timeout_ms=_TIMEOUT_MS)
                middle = time.perf_counter()
                sync.search_memory(question, user=user, timeout_ms=_TIMEOUT_MS)  # the clients share the runtime
                awaited.append((middle - began_at) * 1e3)
                called.append((time.perf_counter() - middle) * 1e3)
        return {"asyncMs": statistics.median(awaited), "syncMs": statistics.median(called)}

    def _warm_up_caller(self, client: MemoAirVoiceClientSync, number: int) -> None:
        user = {"id": f"caller-{number}", "name": "Dana"}
        client.load_index(user=user, timeout_s=60)
        client.save_response(user_text=self._speech.sentence(15), assistant_text=self._speech.sentence(15), user=user)
        client.search_memory(self._speech.sentence(8), user=user, timeout_ms=_TIMEOUT_MS)

    def _make_client(self, *, max_concurrent_users: int = 20, with_org: bool = True) -> MemoAirVoiceClientSync:
        return MemoAirVoiceClientSync(**self._client_options(max_concurrent_users, with_org=with_org))

    def _client_options(self, max_concurrent_users: int = 20, *, with_org: bool = True) -> dict[str, Any]:
        return {
            **self._cloud_options,
            "storage_root": str(self._folder / "root"),
            "org_file": str(self._org_file) if with_org else None,
            "max_concurrent_users": max_concurrent_users,
            "runtime_port_range": _PORTS,
        }


@contextmanager
def _start_cloud(folder: Path, *, enabled: bool) -> Iterator[dict[str, Any]]:
    """Yield the credentials and the cloud of the clients: no cloud, or one that is started here."""
    if not enabled:
        yield {"api_key": "none", "project_id": "bench", "agent_id": "agent_bench", "cloud_base_url": None}
        return
    with start_servers(f"sqlite:///{folder / 'cloud.db'}", folder, 1) as (cloud,), cloud.connect("nobody") as send:
        response = send("POST", f"/v1/projects/{cloud.project_id}/agents", b'{"name": "Bench", "agentType": "voice"}')
        yield {
            "api_key": cloud.key,
            "project_id": cloud.project_id,
            "agent_id": json.loads(response)["id"],
            "cloud_base_url": cloud.url,
        }


class _async_context:  # noqa: N801 - a context manager, used as one
    """An async context manager for a sync client."""

    def __init__(self, client: MemoAirVoiceClientSync) -> None:
        self._client = client

    async def __aenter__(self) -> MemoAirVoiceClientSync:
        return self._client

    async def __aexit__(self, *_: object) -> None:
        self._client.close()


def _memory_bytes(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", 0) or info.uss)


def _print(result: dict[str, float], arguments: argparse.Namespace) -> None:
    table = Table(f"{arguments.documents} documents, {os.cpu_count()} CPUs", "measured", "reference")
    rows: list[tuple[str, Callable[[], str], Callable[[], str]]] = [
        ("new caller to first result, median", lambda: f"{result['newUserMs']:.1f} ms", lambda: ""),
        (f"{arguments.users} new callers", lambda: f"{result['newUsersTotalS']:.2f} s", lambda: ""),
        (f"memory per runtime, {arguments.sharing} callers", lambda: f"{result['memoryMbEach']:.1f} MB", lambda: ""),
        ("runtimes alive / answering", lambda: f"{result['live']}", lambda: f"{result['liveAnswered']}"),
        (
            "turn saved, durable",
            lambda: f"{result['saveMs']:.2f} ms",
            lambda: f"{result['saveRatio']:.2f}x of {result['saveFloorMs']:.2f} ms",
        ),
        (
            f"search, {arguments.threads} threads",
            lambda: f"{result['manyThreadsMs']:.2f} ms, {result['manyThreadsPerS']:.0f} per second",
            lambda: f"one: {result['oneThreadMs']:.2f} ms, {result['oneThreadPerS']:.0f} per second",
        ),
        ("search, async client", lambda: f"{result['asyncMs']:.2f} ms", lambda: f"sync: {result['syncMs']:.2f} ms"),
    ]
    for label, measured, reference in rows:
        try:
            table.add_row(label, measured(), reference())
        except KeyError:  # not measured
            table.add_row(label, "", "")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
