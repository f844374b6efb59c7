"""``memoair`` as a command, and servers of it as processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import urllib3

MEMOAIR = (sys.executable, "-c", "from memoair_cli.app import main; main()")


def memoair(*arguments: str, home: Path, status: int = 0, **environ: str) -> str:
    told = {"HOME": str(home), "PATH": "/usr/bin:/bin", "COLUMNS": "200", **environ}
    done = subprocess.run([*MEMOAIR, *arguments], capture_output=True, text=True, env=told, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def process(*arguments: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (home / f"{arguments[1]}-{os.urandom(4).hex()}.log").open("wb") as output:
        environ = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        running = subprocess.Popen([*MEMOAIR, *arguments], env=environ, stdout=output, stderr=output)
        try:
            yield running
        finally:
            running.kill()
            running.wait(10)


def is_ready(port: int) -> bool:
    with suppress(urllib3.exceptions.HTTPError):
        return urllib3.request("GET", f"http://127.0.0.1:{port}/readyz", timeout=2, retries=False).status == 200
    return False


def serve(home: Path, url: str, port: int, *more: str) -> tuple[str, ...]:
    blobs = (home / "blobs").as_uri()
    return ("cloud", "serve", "--port", str(port), "--database-url", url, "--blob-url", blobs, *more)
