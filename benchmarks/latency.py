"""Latency of a recall and of a durable save, as ratios to floors that are measured in the same run.

The floor of a recall is the same client transport against a server that only sends a reply of the same size. The floor
of a save is that, plus one write and one fdatasync of a line of the same size in the same folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from traces import measure_traces
from workload import (
    ANY_PORT,
    TIMEOUT_MS,
    Speech,
    make_parser,
    measure_disk_ms,
    measure_floor_times_ms,
    measure_median_ms,
    save_turns,
    wait_until_ready,
    write_documents,
)

from memoair_voice_sync import MemoAirVoiceMemorySync


def main() -> int:
    """Run the benchmark and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--traces", action="store_true", help="measure what recall traces cost, and nothing else")
    arguments = parser.parse_args()
    if arguments.traces:
        print(json.dumps(measure_traces(arguments.documents, arguments.turns, arguments.calls)))
        return 0
    result = measure(arguments.documents, arguments.turns, arguments.calls)
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result, arguments)
    return 0


def measure(documents: int, turns: int, calls: int) -> dict[str, float]:
    """Measure everything; return medians in milliseconds."""
    speech = Speech()
    with tempfile.TemporaryDirectory(prefix="memoair-latency-") as folder:
        org_file = Path(folder) / "org.jsonl"
        write_documents(org_file, speech, documents)
        memory = MemoAirVoiceMemorySync(
            project_id="bench", user_id="caller", runtime_url=ANY_PORT, storage_root=folder, org_file=str(org_file)
        )
        with memory:
            started_at = time.perf_counter()
            reply = memory.start_session({"user": {"id": "caller", "name": "Dana"}}, timeout_s=30)
            start_ms = (time.perf_counter() - started_at) * 1e3
            save_turns(memory, speech, turns)
            memory.end_session()
        memory = MemoAirVoiceMemorySync(
            project_id="bench", user_id="caller", runtime_url=ANY_PORT, storage_root=folder, org_file=str(org_file)
        )
        with memory:
            reply = memory.start_session(timeout_s=30)
            wait_until_ready(memory, speech.sentence(5))
            questions = [speech.sentence(8) for _ in range(calls)]
            search_ms = measure_median_ms(lambda i: memory.search_memory(questions[i], timeout_ms=TIMEOUT_MS), calls)
            found = memory.search_memory(questions[0], timeout_ms=TIMEOUT_MS)
            saves = [(speech.sentence(15), speech.sentence(15), f"save-{i}") for i in range(calls)]
            save_ms = measure_median_ms(lambda i: memory.after_turn(*saves[i], timeout_s=10), calls)
            line = Path(reply["paths"]["sessionJsonl"]).read_bytes().splitlines()[-1]
        search_size = len(msgspec.json.encode(vars(found)))
        floor_ms = statistics.median(measure_floor_times_ms(search_size, {"query": questions[0]}, calls))
        turn = {"userText": saves[0][0], "assistantText": saves[0][1]}
        save_floor_ms = statistics.median(measure_floor_times_ms(60, turn, calls)) + measure_disk_ms(
            Path(folder), line, calls
        )
    return {
        "startMs": round(start_ms, 1),
        "searchMs": round(search_ms, 3),
        "searchFloorMs": round(floor_ms, 3),
        "searchRatio": round(search_ms / floor_ms, 2),
        "saveMs": round(save_ms, 3),
        "saveFloorMs": round(save_floor_ms, 3),
        "saveRatio": round(save_ms / save_floor_ms, 2),
        "importMs": round(_import_ms("import memoair_voice_sync") - _import_ms("pass"), 1),
    }


def _import_ms(statement: str) -> float:
    def run(_: int) -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    return measure_median_ms(run, 7)


def _print(result: dict[str, float], arguments: argparse.Namespace) -> None:
    table = Table(
        f"{arguments.documents} documents, {2 * arguments.turns} items, {arguments.calls} calls", "ms", "floor"
    )
    table.add_column("ratio")
    for name, label in (("search", "recall, client call to result"), ("save", "turn saved, durable")):
        table.add_row(label, *(f"{result[name + part]}" for part in ("Ms", "FloorMs", "Ratio")))
    table.add_row("runtime started, session open", f"{result['startMs']}", "", "")
    table.add_row("import memoair_voice_sync", f"{result['importMs']}", "", "")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
