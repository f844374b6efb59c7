"""A bridge that lacks a secret does not start."""

import pickle
from pathlib import Path

import pytest
from bridge import BridgeSettings, BridgeSettingsError, create_app
from support.webhooks import SECRETS

WHOLE = {**SECRETS, "BRIDGE_CALLER_SALT": "a" * 32, "BRIDGE_PUBLIC_URL": "https://voice.example.com"}


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_what_is_missing_is_named(name: str) -> None:
    told = {other: value for other, value in WHOLE.items() if other != name}
    if name.startswith("VAPI"):  # either will do
        assert BridgeSettings.from_environ(told)
        told = {other: value for other, value in told.items() if not other.startswith("VAPI")}
    with pytest.raises(BridgeSettingsError, match=name):
        BridgeSettings.from_environ(told)
    with pytest.raises(BridgeSettingsError, match=name):
        BridgeSettings.from_environ({**told, name: ""})


def test_all_that_is_wrong_is_told_at_once_and_no_secret_with_it() -> None:
    with pytest.raises(BridgeSettingsError) as raised:
        BridgeSettings.from_environ(
            {
                "BRIDGE_PLATFORMS": "twilio, vonage",
                "BRIDGE_CALLER_SALT": "too-short-salt",
                "BRIDGE_RECALL_MS": "-1",
                "BRIDGE_RUNTIME_PORTS": "9-8",
                "MEMOAIR_BASE_URL": "https://cloud.example.com",
            }
        )
    told = str(raised.value)
    for name in ("vonage", "TWILIO_AUTH_TOKEN", "BRIDGE_CALLER_SALT", "BRIDGE_PUBLIC_URL", "BRIDGE_RECALL_MS",
                 "BRIDGE_RUNTIME_PORTS", "MEMOAIR_API_KEY"):  # fmt: skip
        assert name in told
    assert "RETELL" not in told  # nobody wants it
    assert "too-short-salt" not in told


def test_only_the_platforms_that_are_wanted_are_there() -> None:
    app = create_app(BridgeSettings.from_environ({**WHOLE, "BRIDGE_PLATFORMS": "retell"}))
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    assert rules == {"/retell/webhook", "/retell/function", "/healthz"}


def test_nothing_is_checked_on_a_laptop_that_says_so(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    for other in ("1", "true", "yes", ""):
        with pytest.raises(BridgeSettingsError):
            BridgeSettings.from_environ({"BRIDGE_UNSIGNED": other})
    app = create_app(BridgeSettings.from_environ({"BRIDGE_UNSIGNED": "for-development-only"}))
    assert "BRIDGE_UNSIGNED" in caplog.text
    unsigned = app.test_client().post("/twilio/voice", data={"CallSid": "CA1", "From": "anonymous"})
    assert unsigned.status_code == 200


def test_no_secret_is_in_what_is_printed() -> None:
    shown = repr(BridgeSettings.from_environ({**WHOLE, "MEMOAIR_API_KEY": "memoair_pk_of_the_tests"}))
    assert not [each for each in (*SECRETS.values(), WHOLE["BRIDGE_CALLER_SALT"], "memoair_pk_of") if each in shown]
    assert pickle.loads(pickle.dumps(BridgeSettings.from_environ(WHOLE))) == BridgeSettings.from_environ(WHOLE)
