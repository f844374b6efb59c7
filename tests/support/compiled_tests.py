"""Divide among pytest's workers what each of them needs compiled: all test files."""

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def compile_share(config: pytest.Config) -> None:
    """Compile a worker's share of the test files; it reads the others from where the other workers have put them.

    Otherwise each worker compiles them all, at the same time as the others: 12 s each.
    """
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    hook: Any = next((each for each in sys.meta_path if type(each).__name__ == "AssertionRewritingHook"), None)
    if worker is None or hook is None:
        return
    number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in _find_test_files(config)[number::count]:
        spec = importlib.util.spec_from_file_location(f"compiled.{path.stem}", path, loader=hook)
        assert spec is not None
        module: Any = _UnexecutedModule(spec.name)
        module.__spec__ = spec
        with suppress(_CompiledError, SyntaxError):  # a test file that is wrong is reported when it is imported
            hook.exec_module(module)


def _find_test_files(config: pytest.Config) -> list[Path]:
    """Return the files that are about to be collected, the largest first."""
    given = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    found = {path.resolve() for each in given for path in ([each] if each.is_file() else each.rglob("test_*.py"))}
    return sorted(found, key=lambda path: (-path.stat().st_size, path))


class _CompiledError(Exception):
    """The code was compiled and stored, and is about to be executed."""


class _UnexecutedModule(ModuleType):
    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        raise _CompiledError
