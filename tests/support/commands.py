"""Run ``memoair`` as a command: in this process (fast), in another one that can be killed, or as a server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import urllib3
from typer.testing import CliRunner

from memoair_cli.app import app
from support.ports import free_port as free_port

# As in a terminal: a job in the background of a shell, and what it starts, ignores Ctrl-C.
_HEEDS_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
_MAIN = "from memoair_cli.app import main; main()"
MEMOAIR = (sys.executable, "-W", "error", "-c", f"{_HEEDS_INTERRUPTS}; {_MAIN}")


class CommandResult(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str


def memoair(*arguments: str | Path, code: int = 0, stdin: str | bytes | None = None, **environ: str) -> CommandResult:
    """Run a command in this process. It must exit with ``code`` and without a traceback."""
    result = CliRunner().invoke(app, list(map(str, arguments)), input=stdin, env=environ)
    outcome = CommandResult(result.exit_code, result.stdout, result.stderr)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert outcome.code == code, outcome
    return outcome


def environment(home: Path, **environ: str) -> dict[str, str]:
    """Return the environment of another process."""
    inherited = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "COLUMNS": "200", **inherited, **environ}


@contextmanager
def start_process(
    *arguments: str | Path, home: Path, code: str = _MAIN, **environ: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run a command in another process, which is killed at the end of the block. ``code`` calls the command."""
    process = subprocess.Popen(
        [*MEMOAIR[:-1], f"{_HEEDS_INTERRUPTS}\n{code}", *map(str, arguments)],
        env=environment(home, **environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_process(*arguments: str | Path, home: Path, status: int = 0, **environ: str) -> str:
    """Run a command in another process. Return its stdout, or its stderr if ``status`` is a failure."""
    with start_process(*arguments, home=home, **environ) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == status, out + err
    return out if status == 0 else err


@contextmanager
def run_in_background(*arguments: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (home / f"{arguments[1]}-{os.urandom(4).hex()}.log").open("wb") as output:
        running = subprocess.Popen([*MEMOAIR, *arguments], env=environment(home), stdout=output, stderr=output)
        try:
            yield running
        finally:
            running.kill()
            running.wait(10)


def is_ready(port: int) -> bool:
    with suppress(urllib3.exceptions.HTTPError):
        return urllib3.request("GET", f"http://127.0.0.1:{port}/readyz", timeout=2, retries=False).status == 200
    return False


def serve_arguments(home: Path, url: str, port: int, *more: str) -> tuple[str, ...]:
    blobs = (home / "blobs").as_uri()
    return ("cloud", "serve", "--port", str(port), "--database-url", url, "--blob-url", blobs, *more)
