"""An agent's prompt from a push to an offline restart: a real cloud, the SDK, a real runtime, and what calls say."""

from pathlib import Path

import pytest
from support.clients import checking_for_leaks
from support.clouds import Client, running
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

API = "/v1/voice-sdk"


def test_a_prompt_from_its_push_to_an_offline_restart(tmp_path: Path) -> None:
    arguments = {"storage_root": str(tmp_path / "storage"), "prompt_fresh_s": 1e-6}
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path / "cloud") as cloud:
        client = cloud.tenant().with_identity(user="ada")
        other = cloud.tenant("other")
        client.ok("POST", f"{API}/prompts", {"text": "First of {{shop}}.", "labels": ["production"]})
        arguments |= {"api_key": client.key, "cloud_base_url": cloud.url}
        arguments |= {"project_id": client.identity["project"], "agent_id": client.identity["agent"]}
        with MemoAirVoiceClientSync(**arguments) as sdk:
            prompt = sdk.prompt(shop="us", timeout_ms=30_000)
            assert (prompt.text, prompt.version) == ("First of us.", 1)
            with sdk.session(user_id="ada", session_id="call-1", prompt=prompt) as call:
                call.search_memory("Where is my parcel?", timeout_ms=10_000)
                call.save_response(user_text="Where is my parcel?", assistant_text="In Leeds.")
            sdk.report_outcome("call-1", "resolved", score=0.5, user_id="ada")
            client.ok("POST", f"{API}/prompts", {"text": "Second of {{shop}}.", "labels": ["production"]})
            eventually(lambda: sdk.prompt(shop="us").version == 2, 30)
            eventually(lambda: sdk.prompt(shop="us") and not sdk.stats()["prompts"][0]["failures"], 30)
            assert sdk.prompt(version=1, shop="us", timeout_ms=30_000).text == "First of us."
            with pytest.raises(MemoAirVoiceMemoryError) as missing:
                sdk.prompt("staging", timeout_ms=30_000)
            assert missing.value.code == "cloud.not_found"
            stranger = {"project_id": other.identity["project"], "agent_id": other.identity["agent"]}
            with (
                MemoAirVoiceClientSync(**{**arguments, **stranger, "api_key": other.key}) as strange,
                pytest.raises(MemoAirVoiceMemoryError),
            ):
                strange.prompt(shop="us", timeout_ms=30_000)

            def found() -> bool:
                sessions = client.ok("GET", f"{client.path}/sessions")["sessions"] if _is_known(client) else []
                traces = client.ok("GET", f"{API}/sessions/call-1/recall-traces")["traces"] if sessions else []
                return bool(traces) and [each["promptVersion"] for each in (*sessions, *traces)] == [1, 1]

            eventually(found, 60)
        [session] = client.ok("GET", f"{client.path}/export")["sessions"]
        assert session["promptVersion"] == 1
        assert session["metadata"]["prompt"] == {"version": 1, "label": "production"}
        [outcome] = client.ok("GET", f"{API}/outcomes")["outcomes"]
        assert (outcome["sessionId"], outcome["outcome"], outcome["score"]) == ("call-1", "resolved", 0.5)
    with checking_for_leaks(), MemoAirVoiceClientSync(**arguments) as restarted:
        offline = restarted.prompt(shop="them")
        assert (offline.text, offline.version, offline.is_stale) == ("Second of them.", 2, True)
        assert not restarted.prompt(version=1, shop="them").is_stale


def _is_known(client: Client) -> bool:
    return client.call("GET", f"{client.path}/sessions").status == 200
