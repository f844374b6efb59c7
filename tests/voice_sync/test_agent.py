"""The agent: read from the environment, sent in headers, and the client that it makes."""

import dataclasses
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.clients import API_KEY, PATIENT_MS, client_arguments, say
from support.clouds import running, session_start

import memoair_voice
import memoair_voice_sync
from memoair_voice_sync import MemoAirVoiceAgent, MemoAirVoiceClientSync

pytestmark = pytest.mark.usefixtures("patient_saves")

ENVIRONMENT = {"MEMOAIR_API_KEY": API_KEY, "MEMOAIR_PROJECT_ID": "proj_acme", "MEMOAIR_AGENT_ID": "agent_acme_returns"}
ME = MemoAirVoiceAgent(API_KEY, "proj_acme", "agent_acme_returns")


def options(root: Path) -> dict[str, Any]:
    """Return the arguments of a test client besides the identity."""
    ours = client_arguments(root)
    return {name: ours[name] for name in ("storage_root", "runtime_port_range")}


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_an_agent_is_read_from_the_environment(set_environment: pytest.MonkeyPatch) -> None:
    assert MemoAirVoiceAgent.from_env() == ME
    assert ME.cloud_base_url == "https://backend.memoair.space"

    set_environment.setenv("MEMOAIR_USER_ID", "caller_42")
    set_environment.setenv("MEMOAIR_BASE_URL", "http://127.0.0.1:8080")
    set_environment.setenv("MEMOAIR_ORG_ONLY", "true")
    agent = MemoAirVoiceAgent.from_env()
    assert (agent.user_id, agent.cloud_base_url, agent.org_only) == ("caller_42", "http://127.0.0.1:8080", True)


def test_an_empty_base_url_in_the_environment_means_no_cloud() -> None:
    assert MemoAirVoiceAgent.from_env({**ENVIRONMENT, "MEMOAIR_BASE_URL": ""}).cloud_base_url is None


def test_overrides_take_precedence_over_the_environment() -> None:
    agent = MemoAirVoiceAgent.from_env(ENVIRONMENT, project_id="proj_beta", cloud_base_url=None, org_only=True)
    assert agent == dataclasses.replace(ME, project_id="proj_beta", cloud_base_url=None, org_only=True)


@pytest.mark.parametrize("package", [memoair_voice_sync, memoair_voice])
def test_the_name_of_the_url_in_0_3_still_works_and_warns(package: Any) -> None:
    identity = {"api_key": API_KEY, "project_id": "proj_acme", "agent_id": "agent_acme_returns"}
    kind, url = package.MemoAirVoiceAgent, "http://127.0.0.1:8080"
    with pytest.warns(DeprecationWarning, match="^base_url= of the agent is now cloud_base_url=$") as caught:
        agents = [kind(**identity, base_url=url), kind.from_env({**ENVIRONMENT, "MEMOAIR_BASE_URL": ""}, base_url=url)]
    assert {warning.filename for warning in caught} == {__file__}, "the warning is for the application's line"
    assert len(caught) == 2
    assert agents == [kind(**identity, cloud_base_url=url)] * 2
    assert dataclasses.replace(agents[0], cloud_base_url=None).cloud_base_url is None
    with pytest.raises(TypeError, match=r"pass cloud_base_url$"):
        kind(**identity, base_url=url, cloud_base_url=url)


def test_the_error_names_all_missing_variables() -> None:
    with pytest.raises(ValueError, match="MEMOAIR_API_KEY, MEMOAIR_AGENT_ID must be set"):
        MemoAirVoiceAgent.from_env({"MEMOAIR_PROJECT_ID": "proj_acme", "MEMOAIR_API_KEY": ""})


@pytest.mark.parametrize("value", ["1", "True", " yes ", "ON"])
def test_org_only_is_switched_on_in_the_environment(value: str) -> None:
    assert MemoAirVoiceAgent.from_env({**ENVIRONMENT, "MEMOAIR_ORG_ONLY": value}).org_only is True


@pytest.mark.parametrize("value", ["", "0", "False", "no", "off"])
def test_org_only_is_switched_off_in_the_environment(value: str) -> None:
    assert MemoAirVoiceAgent.from_env({**ENVIRONMENT, "MEMOAIR_ORG_ONLY": value}).org_only is False


def test_an_invalid_flag_is_rejected_with_its_name() -> None:
    with pytest.raises(ValueError, match="MEMOAIR_ORG_ONLY must be 1 or 0"):
        MemoAirVoiceAgent.from_env({**ENVIRONMENT, "MEMOAIR_ORG_ONLY": "maybe"})


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"api_key": ""}, "api_key is empty"),
        ({"api_key": "two\nlines"}, "api_key"),
        ({"project_id": ""}, "project_id is empty"),
        ({"agent_id": ""}, "agent_id is empty"),
        ({"user_id": ""}, "user_id is empty"),
        ({"cloud_base_url": "ftp://elsewhere"}, "cloud_base_url"),
    ],
)
def test_invalid_agent_values_are_rejected(changed: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(ME, **changed)


def test_an_agent_hides_its_key_and_can_be_pickled() -> None:
    assert API_KEY not in repr(ME)
    assert "agent_acme_returns" in repr(ME)
    assert pickle.loads(pickle.dumps(ME)) == ME
    with pytest.raises(dataclasses.FrozenInstanceError):
        ME.project_id = "proj_beta"  # type: ignore[misc]


def test_the_headers_contain_the_identity() -> None:
    assert ME.headers() == {
        "Authorization": f"Bearer {API_KEY}",
        "X-Project-Id": "proj_acme",
        "X-Agent-Id": "agent_acme_returns",
    }
    assert dataclasses.replace(ME, user_id="caller_42").headers()["X-User-Id"] == "caller_42"


@pytest.mark.parametrize("user_id", ["two\nlines", " spaces "])
def test_an_id_that_a_header_cannot_hold_is_rejected(user_id: str) -> None:
    with pytest.raises(ValueError, match="user_id"):
        dataclasses.replace(ME, user_id=user_id)


def test_a_cloud_accepts_non_ascii_ids_in_headers(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud:
        tenant = cloud.tenant()
        identity = {f"{name}_id": value for name, value in tenant.identity.items()}
        agent = MemoAirVoiceAgent(str(tenant.key), **identity | {"user_id": "Zoë 🐸"}, cloud_base_url=cloud.url)
        start = session_start("e1", "s1", 1)
        sent = {"url": f"{cloud.url}/v1/voice-sdk/events", "json": {"events": [start]}, "headers": agent.headers()}
        assert requests.post(**sent, timeout=10).json()["accepted"] == ["e1"]
        assert [each["userId"] for each in tenant.ok("GET", "/v1/voice-sdk/users")["users"]] == ["Zoë 🐸"]


def test_a_client_of_an_agent_serves_the_agents_user(tmp_path: Path, nothing_left_behind: None) -> None:
    agent = dataclasses.replace(ME, user_id="ada", cloud_base_url=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = agent.client(**options(tmp_path))
    with client:
        assert isinstance(client, MemoAirVoiceClientSync)
        client.load_index()
        assert client.save_response(user_text="I keep persimmons.", assistant_text="Good.", turn_id="t1")
        assert "persimmons" in client.search_memory("persimmons", timeout_ms=PATIENT_MS).contextText
        assert [each["user_id"] for each in client.stats()["runtimes"]] == ["ada"]


def test_a_client_of_an_agent_without_a_user_serves_many_users(tmp_path: Path, nothing_left_behind: None) -> None:
    with dataclasses.replace(ME, cloud_base_url=None).client(**options(tmp_path)) as client:
        for caller in ("ada", "bob"):
            say(client, caller, "hello", "t1")
        with pytest.raises(ValueError, match="is required"):
            client.search_memory("hello")
        assert {each["user_id"] for each in client.stats()["runtimes"]} == {"ada", "bob"}


def test_an_agent_of_the_async_package_makes_an_async_client(tmp_path: Path, nothing_left_behind: None) -> None:
    agent = memoair_voice.MemoAirVoiceAgent(API_KEY, "proj", "agent", cloud_base_url=None)
    assert isinstance(agent, memoair_voice_sync.MemoAirVoiceAgent)
    assert isinstance(agent.client(**options(tmp_path)), memoair_voice.MemoAirVoiceClient)


def test_a_client_for_one_user_rejects_other_users(tmp_path: Path, nothing_left_behind: None) -> None:
    user = {"id": "ada", "name": "Ada", "metadata": {"plan": "premium"}}
    with MemoAirVoiceClientSync(**client_arguments(tmp_path), user=user) as client:
        for call in (client.load_index, client.session, client.forget_user):
            with pytest.raises(ValueError, match="one user only") as refused:
                call(user_id="bob")
            assert "bob" not in str(refused.value)
        assert client.load_index(user_id="ada").session_id == client.load_index().session_id
        with client.session() as session:
            assert session.save_response(user_text="hello", assistant_text="Good day.", turn_id="t1")
        assert [each["user_id"] for each in client.stats()["runtimes"]] == ["ada"]


@pytest.mark.parametrize("kind", [MemoAirVoiceClientSync, memoair_voice.MemoAirVoiceClient])
def test_the_deprecated_user_id_argument_warns_at_its_line_and_still_works(
    tmp_path: Path, nothing_left_behind: None, kind: Any
) -> None:
    with pytest.warns(DeprecationWarning, match="user_id") as warned:
        client = kind(**client_arguments(tmp_path), user_id="ada")
    assert [each.filename for each in warned] == [__file__]
    sync = client if kind is MemoAirVoiceClientSync else client._sync
    with sync:
        assert sync.load_index().session_id
        with pytest.raises(ValueError, match="one user only"):
            sync.load_index(user_id="bob")
