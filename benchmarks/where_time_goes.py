"""Where the time of a recall goes, from the client's call to its result.

Runs the runtime's server in this process, beside the client, and measures each stage: the processor time of the thread
that does the work, so that other load on the machine counts less, and the elapsed time of the whole call. The time of a
stage includes that of the indented stages below it. Client and server share one interpreter here, which makes the whole
slower than in `latency.py`; look at the shares.
"""

import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from workload import TIMEOUT_MS, Speech, make_parser, save_turns, wait_until_ready, write_documents

import memoair_index.search as index_search
from memoair_index.search import Searcher
from memoair_runtime.http.routes import Routes
from memoair_runtime.http.server import LoopbackServer, _Handler
from memoair_runtime.lifecycle import Lifecycle
from memoair_runtime.main import open_listener
from memoair_runtime.org.lane import OrgLane
from memoair_runtime.recall import search_service
from memoair_runtime.recall.lane_executor import _SearchRun
from memoair_runtime.recall.lanes.permanent_lane import PermanentLane
from memoair_runtime.recall.lanes.working_lane import WorkingLane
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import RuntimeSettings
from memoair_voice_sync import MemoAirVoiceMemorySync

CLIENT_CALL = MemoAirVoiceMemorySync.search_memory
# The timed functions in order: nesting depth, label, owner, name.
STAGES: tuple[tuple[int, str, Any, str], ...] = (
    (0, "the whole call, SDK to result", MemoAirVoiceMemorySync, "search_memory"),
    (1, "server: parse the request's head", _Handler, "_parse_head"),
    (1, "server: route, check, reply", _Handler, "_handle_request"),
    (2, "service", RuntimeService, "search_memory"),
    (3, "lanes and context builder", _SearchRun, "lead"),
    (4, "working lane", WorkingLane, "search"),
    (4, "permanent lane", PermanentLane, "search"),
    (4, "org lane", OrgLane, "search"),
    (5, "index: analyze the question", Searcher, "prepare"),
    (5, "index: select postings", Searcher, "_select_postings"),
    (5, "index: kernel", index_search.kernel, "score"),
    (5, "index: rank by all features", Searcher, "_rank_hits"),
    (4, "context builder", search_service, "compose_context"),
    (2, "encode JSON and send", _Handler, "_write_response"),
)


def main() -> int:
    """Run the benchmark and print the table."""
    arguments = make_parser(__doc__).parse_args()
    times = measure(arguments.documents, arguments.turns, arguments.calls)
    if arguments.json:
        print(json.dumps(times))
        return 0
    table = Table("stage", "per call")
    table.add_column("µs", justify="right")
    for depth, label, _, _ in STAGES:
        visits, median_us = times[label]
        table.add_row("  " * depth + label, f"{visits:.0f}x", f"{median_us:.0f}")
    Console().print(table)
    return 0


def measure(documents: int, turns: int, calls: int) -> dict[str, tuple[float, float]]:
    """Return for each stage how often a call visits it, and the median time of a visit in microseconds."""
    speech = Speech()
    times_by_stage: defaultdict[str, list[float]] = defaultdict(list)
    for _, label, owner, name in STAGES:
        setattr(owner, name, _with_timer(getattr(owner, name), times_by_stage[label]))
    with tempfile.TemporaryDirectory(prefix="memoair-time-") as folder:
        org_file = Path(folder) / "org.jsonl"
        write_documents(org_file, speech, documents)
        settings = RuntimeSettings("bench", "caller", Path(folder) / "root", org_file=org_file)
        service = RuntimeService(settings, Lifecycle())
        service.start_loading()
        listener = open_listener("127.0.0.1", 0)
        server = LoopbackServer(listener, Routes(service), service.metrics, None)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with _make_client(url) as memory:
            memory.start_session(timeout_s=30)
            save_turns(memory, speech, turns)
        with _make_client(url) as memory:
            memory.start_session(timeout_s=30)
            wait_until_ready(memory, speech.sentence(5))
            for times in times_by_stage.values():
                times.clear()
            for _ in range(calls):
                memory.search_memory(speech.sentence(8), timeout_ms=TIMEOUT_MS)
        server.drain(time.monotonic() + 5)
        service.close(time.monotonic() + 5)
    return {
        label: (len(times) / calls, round(statistics.median(times) * 1e6, 1)) if times else (0.0, 0.0)
        for label, times in times_by_stage.items()
    }


def _make_client(url: str) -> MemoAirVoiceMemorySync:
    return MemoAirVoiceMemorySync(project_id="bench", user_id="caller", runtime_url=url, auto_start_runtime=False)


def _with_timer(function: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    # The client's call is measured by elapsed time, and all other stages by the processor time of their thread.
    clock = time.perf_counter if function is CLIENT_CALL else time.thread_time

    def timed(*arguments: Any, **options: Any) -> Any:
        began_at = clock()
        try:
            return function(*arguments, **options)
        finally:
            times.append(clock() - began_at)

    return timed


if __name__ == "__main__":
    sys.exit(main())
