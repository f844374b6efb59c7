"""The settings of the bridge: it does not start if a secret is missing."""

import pickle
from pathlib import Path

import pytest
from bridge import BridgeSettings, BridgeSettingsError, create_app
from support.webhooks import SECRETS

COMPLETE_ENVIRON = {**SECRETS, "BRIDGE_CALLER_SALT": "a" * 32, "BRIDGE_PUBLIC_URL": "https://voice.example.com"}


@pytest.mark.parametrize("name", sorted(COMPLETE_ENVIRON))
def test_the_error_names_the_missing_variable(name: str) -> None:
    environ = {other: value for other, value in COMPLETE_ENVIRON.items() if other != name}
    if name.startswith("VAPI"):  # one of the two secrets is enough
        assert BridgeSettings.from_environ(environ)
        environ = {other: value for other, value in environ.items() if not other.startswith("VAPI")}
    with pytest.raises(BridgeSettingsError, match=name):
        BridgeSettings.from_environ(environ)
    with pytest.raises(BridgeSettingsError, match=name):
        BridgeSettings.from_environ({**environ, name: ""})


def test_the_error_names_every_problem_and_no_secret() -> None:
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
    message = str(raised.value)
    for name in ("vonage", "TWILIO_AUTH_TOKEN", "BRIDGE_CALLER_SALT", "BRIDGE_PUBLIC_URL", "BRIDGE_RECALL_MS",
                 "BRIDGE_RUNTIME_PORTS", "MEMOAIR_API_KEY"):  # fmt: skip
        assert name in message
    assert "RETELL" not in message  # not enabled
    assert "too-short-salt" not in message


def test_only_enabled_platforms_have_routes() -> None:
    app = create_app(BridgeSettings.from_environ({**COMPLETE_ENVIRON, "BRIDGE_PLATFORMS": "retell"}))
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    assert rules == {"/retell/webhook", "/retell/function", "/healthz", "/metrics"}


def test_signatures_are_not_checked_in_development_mode(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    for value in ("1", "true", "yes", ""):
        with pytest.raises(BridgeSettingsError):
            BridgeSettings.from_environ({"BRIDGE_UNSIGNED": value})
    app = create_app(BridgeSettings.from_environ({"BRIDGE_UNSIGNED": "for-development-only"}))
    assert "BRIDGE_UNSIGNED" in caplog.text
    reply = app.test_client().post("/twilio/voice", data={"CallSid": "CA1", "From": "anonymous"})
    assert reply.status_code == 200


def test_repr_contains_no_secret() -> None:
    text = repr(BridgeSettings.from_environ({**COMPLETE_ENVIRON, "MEMOAIR_API_KEY": "memoair_pk_of_the_tests"}))
    assert not [
        secret
        for secret in (*SECRETS.values(), COMPLETE_ENVIRON["BRIDGE_CALLER_SALT"], "memoair_pk_of")
        if secret in text
    ]
    assert pickle.loads(pickle.dumps(BridgeSettings.from_environ(COMPLETE_ENVIRON))) == BridgeSettings.from_environ(
        COMPLETE_ENVIRON
    )
