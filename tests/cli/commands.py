"""The command line for tests: in this process, which is quick, or in one of its own, which can be killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from memoair_cli.app import app

MEMOAIR = (sys.executable, "-W", "error", "-c", "from memoair_cli.app import main; main()")


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


def memoair(*arguments: str | Path, code: int = 0, given: str | bytes | None = None, **environ: str) -> Done:
    """Run a command in this process; it must end with ``code``, and without a traceback."""
    result = CliRunner().invoke(app, list(map(str, arguments)), input=given, env=environ)
    done = Done(result.exit_code, result.stdout, result.stderr)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert done.code == code, done
    return done


def environment(home: Path, **environ: str) -> dict[str, str]:
    """What a process of its own is started with."""
    ours = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "COLUMNS": "200", **ours, **environ}


@contextmanager
def starting(*arguments: str | Path, home: Path, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a command in a process of its own; it is killed at the end of the block."""
    process = subprocess.Popen(
        [*MEMOAIR, *map(str, arguments)],
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
