"""Break each guard of the code in a copy, and see that a test fails.

    python tools/break_guards.py                 # all guards; exit code 1 if one survives or cannot be broken
    python tools/break_guards.py --only gzip     # those with this text in their names
    python tools/break_guards.py --list

The guards are in tools/guards/. A test that passes although the guard is broken does not guard anything: write one
that fails. The working tree is not touched, and the tests should pass in it before.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from guards import GUARDS, Guard

ROOT = Path(__file__).resolve().parents[1]
_TIMEOUT_S = 600
_TESTS_FAILED = 1  # an exit code of pytest; others say that the tests could not run


def break_guard(guard: Guard, root: Path) -> str:
    """Return the module of a guard without the guard.

    Raises:
        ValueError: The text of the guard is not in the module, or more than once.
    """
    content = (root / guard.file).read_text()
    if (count := content.count(guard.text)) != 1:
        raise ValueError(f"its text is {count} times in {guard.file}")
    return content.replace(guard.text, guard.broken)


def copy_tree(target: Path) -> None:
    """Copy the files of the repository, also new ones, and the compiled modules."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - whichever git the developer has
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    files = {ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name}
    files |= {path for package in ROOT.glob("memoair_*") for path in package.rglob("*.so")}
    for path in files:
        if path.is_file():
            copied = target / path.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copied)


def try_guard(guard: Guard, copy: Path) -> str | None:
    """Break a guard in a copy, run its tests, and mend it. Return what is wrong, or None if a test failed."""
    path = copy / guard.file
    whole = path.read_text()
    try:
        broken = break_guard(guard, copy)
    except (OSError, ValueError) as error:
        return f"cannot be broken: {error}"
    try:
        _write(path, broken)
        code, output = _run_tests(guard, copy)
    finally:
        _write(path, whole)
    if code == _TESTS_FAILED:
        return None
    if code == 0:
        return "survives: all its tests pass"
    return f"its tests did not run (exit code {code}):\n{output[-2_000:]}"


def _write(path: Path, content: str) -> None:
    """Write a module with a time that no version of it had: Python tells compiled modules apart by time and size."""
    newer = path.stat().st_mtime + 10
    path.write_text(content)
    os.utime(path, (newer, newer))


def _run_tests(guard: Guard, copy: Path) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *guard.tests]
    with subprocess.Popen(  # noqa: S603 - tests of the table
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as tests:
        try:
            output, _ = tests.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            output = f"not done after {_TIMEOUT_S} s"
        finally:
            if tests.poll() is None:
                os.killpg(tests.pid, signal.SIGKILL)
    return tests.returncode, output


def main() -> int:
    """Break the chosen guards. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help="only guards whose name or file contains this")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="list the guards and their tests")
    options = parser.parse_args()
    chosen = [guard for guard in GUARDS if not options.only or options.only in f"{guard.name} {guard.file}"]
    if options.list:
        for guard in chosen:
            sys.stdout.write(f"{guard.name}: {guard.file}; {' '.join(guard.tests)}\n")
        return 0
    if not chosen:
        parser.error("no guard has this name")
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="memoair-guards-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(max(1, options.jobs)):
            copy_tree(Path(folder) / str(number))
            copies.put(Path(folder) / str(number))

        def run(guard: Guard) -> None:
            copy, began_at = copies.get(), time.monotonic()
            try:
                problem = try_guard(guard, copy)
            finally:
                copies.put(copy)
            if problem is not None:
                problems.append(f"{guard.name}: {problem}")
            sys.stdout.write(f"{problem or 'caught'} ({time.monotonic() - began_at:.0f} s): {guard.name}\n")
            sys.stdout.flush()

        with ThreadPoolExecutor(max(1, options.jobs)) as pool:
            list(pool.map(run, chosen))
    sys.stdout.write(f"{len(chosen) - len(problems)} of {len(chosen)} guards are guarded\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
