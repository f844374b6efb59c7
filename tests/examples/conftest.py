"""The examples are programs in folders of their own, which nobody installs: each begins where it lies."""

import sys
from pathlib import Path

import pytest

_EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(_EXAMPLES / name) for name in ("flask_bridge", "tenants", "batch")]


@pytest.fixture(autouse=True)
def turns_are_kept_at_once(patient_saves: None) -> None:
    """However slow the machine is: what becomes of a turn that is not is tested with the client."""
