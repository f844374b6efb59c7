"""Fixtures for the tests of the examples. The examples are not installed: their folders are put on the import path."""

import sys
from pathlib import Path

import pytest

_EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(_EXAMPLES / name) for name in ("flask_bridge", "tenants", "batch")]


@pytest.fixture(autouse=True)
def wait_for_saves(patient_saves: None) -> None:
    """Wait for saves, however slow the machine is. Tests of the client cover turns that are not saved in time."""
