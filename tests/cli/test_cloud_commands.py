"""The commands that use a cloud: their credentials, and the errors of the cloud."""

from pathlib import Path

import pytest
from cli.imports import cloud_environment
from support.clouds import Client
from support.commands import memoair


def test_netrc_does_not_replace_the_key(client: Client, home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    assert memoair("project", "create", "Second", **cloud_environment(client)).out.startswith("proj_second")


@pytest.mark.parametrize("key", ["memoair_pk_ä", "memoair pk", "memoair_pk\x01"])
def test_an_invalid_key_is_reported_without_the_key(key: str) -> None:
    done = memoair("project", "create", "Acme", code=1, MEMOAIR_API_KEY=key)
    assert done.err == "MEMOAIR_API_KEY has a character that is invalid in keys\n"


def test_a_line_feed_after_the_key_is_ignored(client: Client) -> None:
    environ = cloud_environment(client)
    environ["MEMOAIR_API_KEY"] += "\n"
    assert memoair("project", "create", "Second", **environ).out.startswith("proj_second")


def test_the_error_of_the_cloud_is_shown(client: Client) -> None:
    done = memoair("project", "create", "Acme", code=1, **cloud_environment(client))
    assert f"the cloud at {client.url} rejected the request: cloud.conflict: " in done.err
