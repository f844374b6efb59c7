"""The guards that tools/break_guards.py breaks are up to date: each can be broken, and names tests that exist."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
try:
    from break_guards import break_guard
    from guards import GUARDS, Guard
finally:
    sys.path.remove(str(ROOT / "tools"))


@pytest.mark.parametrize("guard", GUARDS, ids=[guard.name for guard in GUARDS])
def test_a_guard_can_be_broken_and_its_tests_exist(guard: Guard) -> None:
    ast.parse(break_guard(guard, ROOT))
    paths = [argument for argument in guard.tests if argument.endswith(".py")]
    assert paths
    assert all((ROOT / path).is_file() for path in paths)


def test_each_guard_has_its_own_name() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
