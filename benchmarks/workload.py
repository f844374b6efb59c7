"""Shared by the speed benchmarks: generated speech, timing, and the floor of a call to a runtime.

Run as a script, it is the server of the floor: it replies with as many bytes as its argument says, until standard input
closes.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from memoair_voice_sync import MemoAirVoiceMemorySync
from memoair_voice_sync._loopback.transport import RuntimeTransport, encode_body

TOPICS = 12
ANY_PORT = "http://127.0.0.1:0"
TIMEOUT_MS = 5_000


class Speech:
    """Generated sentences with the word frequencies of a natural language; the same in every run."""

    def __init__(self) -> None:
        self._random = random.Random(20261120)
        letters = "bcdfghklmnprstvw"
        self._words = [
            "".join(self._random.choice(letters) + self._random.choice("aeiou") for _ in range(2 + i % 3))
            for i in range(20_000)
        ]

    def sentence(self, words: int) -> str:
        """Return a sentence of so many words."""
        # Zipf's law: the n-th word is used about 1/n as often as the first.
        picks = (int(len(self._words) ** self._random.random()) - 1 for _ in range(words))
        return " ".join(self._words[pick] for pick in picks).capitalize() + "."


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the options of a benchmark of one runtime: the size of its memory and the number of calls."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="org documents (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=500, help="turns of earlier calls, two items each (%(default)s)")
    parser.add_argument("--calls", type=int, default=500, help="calls measured of each kind (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def write_documents(path: Path, speech: Speech, count: int) -> None:
    """Write so many generated documents in the format of `org_file`, each tagged with one of `TOPICS` topics."""
    topics = [speech.sentence(2).removesuffix(".") for _ in range(TOPICS)]
    documents = (
        {"id": f"doc-{number}", "text": speech.sentence(40), "metadata": {"topic": topics[number % TOPICS]}}
        for number in range(count)
    )
    path.write_text("".join(f"{json.dumps(document)}\n" for document in documents))


def save_turns(memory: MemoAirVoiceMemorySync, speech: Speech, count: int) -> None:
    """Save so many generated turns."""
    for number in range(count):
        memory.after_turn(speech.sentence(15), speech.sentence(15), f"turn-{number}", timeout_s=10)


def measure_times_ms(call: Callable[[int], object], calls: int) -> list[float]:
    """Return the duration of each of so many calls in milliseconds; ``call`` is passed the number of the call."""
    times = []
    for number in range(calls):
        began_at = time.perf_counter()
        call(number)
        times.append((time.perf_counter() - began_at) * 1e3)
    return times


def measure_median_ms(call: Callable[[int], object], calls: int) -> float:
    """Return the median duration of so many calls in milliseconds; ``call`` is passed the number of the call."""
    return statistics.median(measure_times_ms(call, calls))


def measure_floor_times_ms(size: int, body: dict[str, Any], calls: int) -> list[float]:
    """Return the durations of requests by the client's transport to a server that only replies with ``size`` bytes."""
    command = [sys.executable, __file__, str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        transport = RuntimeTransport("127.0.0.1", int(server.stdout.readline()), None)
        times = measure_times_ms(lambda _: transport.call("POST", "/", encode_body(body), time.monotonic() + 10), calls)
        transport.close()
        server.communicate()
    return times


def wait_until_ready(memory: MemoAirVoiceMemorySync, question: str) -> None:
    """Search until no lane is loading."""
    while memory.search_memory(question, timeout_ms=TIMEOUT_MS).trace["degraded"]:
        # Without a pause, the searches would take the processor time that the runtime needs to load.
        time.sleep(0.02)


def measure_disk_ms(folder: Path, line: bytes, calls: int) -> float:
    """Return the median duration of writing ``line`` durably to a file in ``folder``, in milliseconds."""
    descriptor = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sync = getattr(os, "fdatasync", os.fsync)

    def write(_: int) -> None:
        os.write(descriptor, line)
        sync(descriptor)

    median = measure_median_ms(write, calls)
    os.close(descriptor)
    return median


def serve_replies(size: int) -> int:
    """Serve replies of ``size`` bytes on a free port, printed to standard output, until standard input closes."""
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


if __name__ == "__main__":
    sys.exit(serve_replies(int(sys.argv[1])))
