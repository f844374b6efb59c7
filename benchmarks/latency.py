"""How long a recall and a durable save take, as ratios against the floor measured in the same run.

The floor of a recall is the same client transport against a server that only sends back a reply of the same size. The
floor of a save is that plus one write and one fdatasync of a line of the same size in the same folder.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from memoair_voice_sync import MemoAirVoiceMemorySync
from memoair_voice_sync._transport import RuntimeTransport, encode_body

ANY_PORT = "http://127.0.0.1:0"
PATIENT_MS = 5_000


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="org documents (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=500, help="turns of earlier calls, two items each (%(default)s)")
    parser.add_argument("--calls", type=int, default=500, help="calls measured of each kind (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--echo", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo is not None:
        return echo(arguments.echo)
    result = measure(arguments.documents, arguments.turns, arguments.calls)
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result, arguments)
    return 0


def measure(documents: int, turns: int, calls: int) -> dict[str, float]:
    """Measure everything; medians in milliseconds."""
    speech = Speech()
    with tempfile.TemporaryDirectory(prefix="memoair-latency-") as folder:
        org_file = Path(folder) / "org.jsonl"
        org_file.write_text(
            "".join(json.dumps({"id": f"doc-{i}", "text": speech.sentence(40)}) + "\n" for i in range(documents))
        )
        memory = MemoAirVoiceMemorySync(
            project_id="bench", user_id="caller", runtime_url=ANY_PORT, storage_root=folder, org_file=str(org_file)
        )
        with memory:
            started_at = time.perf_counter()
            reply = memory.start_session({"user": {"id": "caller", "name": "Dana"}}, timeout_s=30)
            start_ms = (time.perf_counter() - started_at) * 1e3
            for number in range(turns):
                memory.after_turn(speech.sentence(15), speech.sentence(15), f"turn-{number}", timeout_s=10)
            memory.end_session()
        memory = MemoAirVoiceMemorySync(
            project_id="bench", user_id="caller", runtime_url=ANY_PORT, storage_root=folder, org_file=str(org_file)
        )
        with memory:
            reply = memory.start_session(timeout_s=30)
            _wait_until_ready(memory, speech)
            questions = [speech.sentence(8) for _ in range(calls)]
            search_ms = _median_ms(lambda i: memory.search_memory(questions[i], timeout_ms=PATIENT_MS), calls)
            found = memory.search_memory(questions[0], timeout_ms=PATIENT_MS)
            saves = [(speech.sentence(15), speech.sentence(15), f"save-{i}") for i in range(calls)]
            save_ms = _median_ms(lambda i: memory.after_turn(*saves[i], timeout_s=10), calls)
            line = Path(reply["paths"]["sessionJsonl"]).read_bytes().splitlines()[-1]
        search_size = len(msgspec.json.encode(vars(found)))
        floor_ms = _floor_ms(search_size, {"query": questions[0]}, calls)
        turn = {"userText": saves[0][0], "assistantText": saves[0][1]}
        save_floor_ms = _floor_ms(60, turn, calls) + _disk_ms(Path(folder), line, calls)
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


class Speech:
    """Made-up sentences whose words are as unevenly used as those of a language; the same in every run."""

    def __init__(self) -> None:
        self._random = random.Random(20261120)
        letters = "bcdfghklmnprstvw"
        self._words = [
            "".join(self._random.choice(letters) + self._random.choice("aeiou") for _ in range(2 + i % 3))
            for i in range(20_000)
        ]

    def sentence(self, words: int) -> str:
        """A sentence of so many words."""
        # Zipf's law: the n-th word is used about 1/n as often as the first.
        picks = (int(len(self._words) ** self._random.random()) - 1 for _ in range(words))
        return " ".join(self._words[pick] for pick in picks).capitalize() + "."


def echo(size: int) -> int:
    """Serve, on a free port that is told on standard output, replies of ``size`` bytes until standard input closes."""
    reply = b'{"r":"' + b"x" * (size - 8) + b'"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(reply)}\r\n\r\n".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(head + reply)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    return 0


def _floor_ms(size: int, body: dict[str, Any], calls: int) -> float:
    command = [sys.executable, __file__, "--echo", str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        transport = RuntimeTransport("127.0.0.1", int(server.stdout.readline()), None)
        median = _median_ms(lambda _: transport.call("POST", "/", encode_body(body), time.monotonic() + 10), calls)
        transport.close()
        server.communicate()
    return median


def _disk_ms(folder: Path, line: bytes, calls: int) -> float:
    descriptor = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sync = getattr(os, "fdatasync", os.fsync)

    def write(_: int) -> None:
        os.write(descriptor, line)
        sync(descriptor)

    median = _median_ms(write, calls)
    os.close(descriptor)
    return median


def _median_ms(call: Callable[[int], object], calls: int) -> float:
    times = []
    for number in range(calls):
        began_at = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - began_at)
    return statistics.median(times) * 1e3


def _import_ms(statement: str) -> float:
    def run(_: int) -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    return _median_ms(run, 7)


def _wait_until_ready(memory: MemoAirVoiceMemorySync, speech: Speech) -> None:
    while memory.search_memory(speech.sentence(5), timeout_ms=PATIENT_MS).trace["degraded"]:
        pass


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
