"""A runtime's environment: what is read from it, and which variables are rejected."""

from pathlib import Path

import pytest

from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_runtime.settings import RuntimeSettings, SettingsError, default_storage_root

REQUIRED = {"PROJECT_ID": "proj_test", "USER_ID": "caller_42"}


def parse_settings(**variables: str) -> RuntimeSettings:
    """Return the settings of a runtime that is started with these variables, given without their prefix."""
    return RuntimeSettings.from_environ({f"MEMOAIR_RUNTIME_{name}": value for name, value in variables.items()})


def test_with_only_the_ids_everything_else_has_its_default() -> None:
    assert parse_settings(**REQUIRED) == RuntimeSettings(
        project_id="proj_test",
        user_id="caller_42",
        storage_root=default_storage_root(),
        host="127.0.0.1",
        port=7878,
        agent_id=None,
        token=None,
        cloud_key=None,
        cloud_base_url="https://backend.memoair.space",
        pull_interval_s=30.0,
        org_only=False,
        org_file=None,
        stops_with_stdin=False,
    )


def test_every_variable_is_read(tmp_path: Path) -> None:
    assert parse_settings(
        **REQUIRED,
        AGENT_ID="agent_7",
        BIND_ADDR="127.0.0.1:9000",
        API_KEY="memoair_pk_1",
        TOKEN="open-sesame",
        CLOUD_BASE_URL="http://127.0.0.1:8080/",
        PULL_INTERVAL_S="2.5",
        STORAGE_ROOT=str(tmp_path),
        ORG_FILE=str(tmp_path / "org.jsonl"),
        OWNER_PIPE="stdin",
    ) == RuntimeSettings(
        project_id="proj_test",
        user_id="caller_42",
        storage_root=tmp_path,
        port=9000,
        agent_id="agent_7",
        token="open-sesame",
        cloud_key="memoair_pk_1",
        cloud_base_url="http://127.0.0.1:8080",
        pull_interval_s=2.5,
        org_file=tmp_path / "org.jsonl",
        stops_with_stdin=True,
    )


def test_variables_without_the_prefix_are_ignored() -> None:
    environ = {"MEMOAIR_PROJECT_ID": "proj_test", "USER_ID": "caller_42", "memoair_runtime_user_id": "caller_42"}
    with pytest.raises(SettingsError):
        RuntimeSettings.from_environ(environ)


def test_an_empty_variable_counts_as_unset() -> None:
    empty = dict.fromkeys(["AGENT_ID", "BIND_ADDR", "TOKEN", "API_KEY", "PULL_INTERVAL_S", "MODE", "ORG_FILE"], "")
    assert parse_settings(**REQUIRED, **empty, STORAGE_ROOT="") == parse_settings(**REQUIRED)


# The cloud


def test_without_a_key_or_with_an_empty_url_there_is_no_cloud() -> None:
    assert parse_settings(**REQUIRED, API_KEY="memoair_pk_1").has_cloud
    assert parse_settings(**REQUIRED, INTERNAL_TOKEN="internal").has_cloud
    assert not parse_settings(**REQUIRED).has_cloud
    without_url = parse_settings(**REQUIRED, API_KEY="memoair_pk_1", CLOUD_BASE_URL="")
    assert (without_url.has_cloud, without_url.cloud_base_url, without_url.cloud_id) == (False, None, None)


@pytest.mark.parametrize(
    "url",
    [
        "cloud",
        "ftp://cloud",
        "https://",
        "https://user:word@cloud",
        "https://cloud?a=b",
        "https://cloud:0",
        "http://[::",
    ],
)
def test_an_invalid_cloud_url_is_rejected(url: str) -> None:
    with pytest.raises(SettingsError, match="MEMOAIR_RUNTIME_CLOUD_BASE_URL") as caught:
        parse_settings(**REQUIRED, CLOUD_BASE_URL=url)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("key", ["zanzibar\nplum", "zanzibarpl\u00fcm", "zanzibarplum "])
def test_a_key_that_is_invalid_in_a_header_is_rejected_without_showing_it(key: str) -> None:
    with pytest.raises(SettingsError, match="MEMOAIR_RUNTIME_API_KEY") as caught:
        parse_settings(**REQUIRED, API_KEY=key)
    assert "zanzibar" not in str(caught.value)


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf"])
def test_an_invalid_interval_is_rejected(seconds: str) -> None:
    with pytest.raises(SettingsError, match="MEMOAIR_RUNTIME_PULL_INTERVAL_S"):
        parse_settings(**REQUIRED, PULL_INTERVAL_S=seconds)


# Identity


@pytest.mark.parametrize(
    "variables",
    [
        {"PROJECT_ID": "proj_test"},
        {"WORKSPACE_ID": "proj_test"},
        {"PROJECT_ID": "proj_test", "WORKSPACE_ID": "proj_test"},
        {"PROJECT_ID": "", "WORKSPACE_ID": "proj_test"},
    ],
)
def test_either_variable_sets_the_project(variables: dict[str, str]) -> None:
    assert parse_settings(**variables, USER_ID="caller_42").project_id == "proj_test"


def test_two_different_projects_are_rejected_and_both_variables_named() -> None:
    with pytest.raises(SettingsError, match=r"MEMOAIR_RUNTIME_PROJECT_ID.*MEMOAIR_RUNTIME_WORKSPACE_ID"):
        parse_settings(PROJECT_ID="proj_one", WORKSPACE_ID="proj_two", USER_ID="caller_42")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "MEMOAIR_RUNTIME_PROJECT_ID"),
        ({"USER_ID": "caller_42"}, "MEMOAIR_RUNTIME_PROJECT_ID"),
        ({"USER_ID": "caller_42", "PROJECT_ID": "", "WORKSPACE_ID": ""}, "MEMOAIR_RUNTIME_PROJECT_ID"),
        ({"PROJECT_ID": "proj_test"}, "MEMOAIR_RUNTIME_USER_ID"),
        ({"PROJECT_ID": "proj_test", "USER_ID": ""}, "MEMOAIR_RUNTIME_USER_ID"),
        ({"MODE": "org_only"}, "MEMOAIR_RUNTIME_PROJECT_ID"),
        ({"PROJECT_ID": "proj_\udcff", "USER_ID": "caller_42"}, "MEMOAIR_RUNTIME_PROJECT_ID"),
        ({"PROJECT_ID": "proj_test", "USER_ID": "caller_\udcff"}, "MEMOAIR_RUNTIME_USER_ID"),
    ],
)
def test_a_missing_or_invalid_id_is_rejected_and_its_variable_named(variables: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse_settings(**variables)


@pytest.mark.parametrize("identifier", ["../../etc", "a/b", " ", "x" * 300, "👢", "ÄÖ", "__org__x"])
def test_an_id_may_be_any_text(identifier: str) -> None:
    parsed = parse_settings(PROJECT_ID=identifier, USER_ID=identifier)
    assert (parsed.project_id, parsed.user_id) == (identifier, identifier)


# Org-only mode


@pytest.mark.parametrize("variables", [{}, {"USER_ID": "caller_42"}, {"USER_ID": ""}])
def test_an_org_only_runtime_has_its_own_user_id(variables: dict[str, str]) -> None:
    parsed = parse_settings(PROJECT_ID="proj_test", MODE="org_only", **variables)
    assert parsed.org_only
    assert parsed.user_id == "__org__"


@pytest.mark.parametrize("mode", ["org-only", "ORG_ONLY", "full", " ", "org_only "])
def test_an_unknown_mode_is_rejected(mode: str) -> None:
    with pytest.raises(SettingsError, match="MEMOAIR_RUNTIME_MODE"):
        parse_settings(**REQUIRED, MODE=mode)


# Address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:7878", "127.0.0.1", 7878),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("127.1.2.3:80", "127.1.2.3", 80),
        ("localhost:80", "127.0.0.1", 80),
        ("[::1]:7878", "::1", 7878),
    ],
)
def test_a_loopback_address_is_accepted(address: str, host: str, port: int) -> None:
    parsed = parse_settings(**REQUIRED, BIND_ADDR=address)
    assert (parsed.host, parsed.port) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:7878",
        "[::]:7878",
        ":::7878",
        "192.168.1.10:7878",
        "10.0.0.1:7878",
        "8.8.8.8:7878",
        "169.254.0.1:7878",
        "128.0.0.1:7878",
        "[fe80::1]:7878",
        "[2001:db8::1]:7878",
        "example.com:7878",
        "localhost.example.com:7878",
        "127.0.0.1.example.com:7878",
        "2130706433:7878",
        "0x7f.1:7878",
        "127.1:7878",
        "127.0.0.256:7878",
        " 127.0.0.1:7878",
        "*:7878",
        ":7878",
        "7878",
    ],
)
def test_a_non_loopback_address_is_rejected(address: str) -> None:
    with pytest.raises(SettingsError, match=r"MEMOAIR_RUNTIME_BIND_ADDR.*loopback"):
        parse_settings(**REQUIRED, BIND_ADDR=address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:-1",
        "127.0.0.1:+80",
        "127.0.0.1:8_0",
        "127.0.0.1: 80",
        "127.0.0.1:80 ",
        "127.0.0.1:1.5",
        "127.0.0.1:65536",
        "127.0.0.1:99999999999999999999",
        "127.0.0.1:" + "9" * 5_000,
        "127.0.0.1:٧٨٧٨",
        "127.0.0.1:²",
        "http://127.0.0.1:7878/",
        "[::1]",
        ":",
    ],
)
def test_an_address_without_a_valid_port_is_rejected(address: str) -> None:
    with pytest.raises(SettingsError, match=r"MEMOAIR_RUNTIME_BIND_ADDR.*HOST:PORT"):
        parse_settings(**REQUIRED, BIND_ADDR=address)


# Secrets


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"API_KEY": "key"}, "key"),
        ({"INTERNAL_TOKEN": "token"}, "token"),
        ({"API_KEY": "key", "INTERNAL_TOKEN": "token"}, "key"),
        ({"API_KEY": "", "INTERNAL_TOKEN": "token"}, "token"),
    ],
)
def test_either_variable_sets_the_cloud_key(variables: dict[str, str], key: str) -> None:
    assert parse_settings(**REQUIRED, **variables).cloud_key == key


def test_secrets_are_not_in_the_repr() -> None:
    text = repr(parse_settings(**REQUIRED, API_KEY="zanzibarplum", TOKEN="zanzibarpear"))
    assert "zanzibar" not in text
    assert "caller_42" in text


def test_the_default_storage_root_is_in_the_platforms_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_storage_root().parts[-2:] == ("memoair", "voice")
    assert default_storage_root().is_relative_to(tmp_path)
    assert parse_settings(**REQUIRED).storage_root == default_storage_root()
    assert parse_settings(**REQUIRED).cloud_base_url == CLOUD_BASE_URL
