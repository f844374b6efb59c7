"""Fixtures of the dashboard's tests: one server with calls, traces and facts for all of them, and a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clouds import running
from support.dashboards import Dashboard, fill_project


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Yield a server with a filled project. Tests that change data make a project of their own."""
    folder: Path = tmp_path_factory.mktemp("dashboard")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder, dashboard_sign_ins_at_once=10_000) as cloud:
        yield fill_project(cloud)
