"""The settings of the bridge, from the environment. It does not start if a secret is missing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

# The required secrets of each platform. Of Vapi's two, one is enough.
SECRETS = {
    "twilio": ("TWILIO_AUTH_TOKEN",),
    "vapi": ("VAPI_HMAC_SECRET", "VAPI_SECRET"),
    "retell": ("RETELL_API_KEY",),
    "elevenlabs": ("ELEVENLABS_WEBHOOK_SECRET", "ELEVENLABS_TOOL_SECRET"),
}
_MIN_SALT_CHARS = 16
_MIN_SECRET_CHARS = 16
_NUMBERS = {
    "BRIDGE_MAX_CALLERS": 64,
    "BRIDGE_RECALL_MS": 250,
    "BRIDGE_KEEP_MS": 2_000,
    "BRIDGE_MAX_BODY_MB": 16,
    "BRIDGE_MODEL_TIMEOUT_MS": 15_000,
}


class BridgeSettingsError(ValueError):
    """The environment is incomplete or invalid. The message names every problem, but no secret."""


@dataclass(frozen=True)
class ModelSettings:
    """The operator's language model, which the bridge stands in front of.

    Attributes:
        url: The base URL of its OpenAI-compatible interface, such as ``https://api.openai.com/v1``.
        key: Its API key; empty if it needs none.
        name: The model to ask for; empty for the one that the platform names.
        secret: What the platforms send as API key to the bridge.
        timeout_ms: How long the model may take until it begins, or goes on, to answer.
    """

    url: str
    key: str = field(repr=False)
    name: str
    secret: bytes = field(repr=False)
    timeout_ms: float


@dataclass(frozen=True)
class BridgeSettings:
    """The platforms that call the bridge, their secrets, and the memory it uses.

    Attributes:
        platforms: The enabled platforms.
        public_url: The URL that the platforms call, without a slash at the end.
        caller_salt: The salt of the caller ids.
        secrets: The secrets by variable name.
        accepts_unsigned: Whether signatures are not checked; for development only.
        project_id: The project that the memory belongs to.
        agent_id: The agent within the project.
        api_key: The API key of the account.
        cloud_base_url: The URL of the cloud, or None for no cloud.
        storage_root: The folder for memories; None means the user data folder of the platform.
        port_range: The first and the last port for runtimes.
        max_concurrent_users: How many callers can have a runtime in one worker.
        recall_timeout_ms: How long a caller waits for memories.
        save_timeout_ms: How long a caller waits until a turn is saved, before their answer.
        max_body_bytes: The size of the largest body that is accepted.
        state_folder: The folder for what the workers share for an hour.
        metrics_token: The token for ``GET /metrics``, which does not exist without one.
        model: The language model, None if the platforms use their own.
    """

    platforms: tuple[str, ...]
    public_url: str
    caller_salt: bytes = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    accepts_unsigned: bool
    project_id: str
    agent_id: str
    api_key: str = field(repr=False)
    cloud_base_url: str | None
    storage_root: str | None
    port_range: tuple[int, int]
    max_concurrent_users: int
    recall_timeout_ms: float
    save_timeout_ms: float
    max_body_bytes: int
    state_folder: Path
    metrics_token: bytes = field(repr=False)
    model: ModelSettings | None

    def secret(self, name: str) -> bytes:
        """Return the secret of a variable; empty if it is not set."""
        return self.secrets.get(name, "").encode()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "BridgeSettings":
        """Read the environment. Raises `BridgeSettingsError`, which names everything that is missing or invalid."""
        errors: list[str] = []
        accepts_unsigned = environ.get("BRIDGE_UNSIGNED") == "for-development-only"
        names = [name.strip() for name in environ.get("BRIDGE_PLATFORMS", ",".join(SECRETS)).split(",") if name.strip()]
        platforms = tuple(dict.fromkeys(names))
        errors += [
            f"BRIDGE_PLATFORMS contains the unknown {name!r}; use {', '.join(SECRETS)}"
            for name in names
            if name not in SECRETS
        ]
        secrets = {name: environ[name] for names in SECRETS.values() for name in names if environ.get(name)}
        if not accepts_unsigned:
            errors += [f"{missing} is not set" for name in platforms for missing in _missing_secrets(name, secrets)]
        salt = environ.get("BRIDGE_CALLER_SALT", "salt-of-a-laptop" if accepts_unsigned else "")
        if len(salt) < _MIN_SALT_CHARS:
            errors.append(f"BRIDGE_CALLER_SALT must have at least {_MIN_SALT_CHARS} characters, and must never change")
        public_url = environ.get("BRIDGE_PUBLIC_URL", "http://127.0.0.1:8000" if accepts_unsigned else "").rstrip("/")
        if "twilio" in platforms and not _is_url(public_url):
            errors.append("BRIDGE_PUBLIC_URL must be the https:// URL that Twilio calls, which Twilio signs")
        numbers = {name: _read_positive_int(environ, name, default, errors) for name, default in _NUMBERS.items()}
        ports = _parse_port_range(environ.get("BRIDGE_RUNTIME_PORTS", "7878-7977"), errors)
        cloud_base_url = environ.get("MEMOAIR_BASE_URL") or None
        if cloud_base_url and not environ.get("MEMOAIR_API_KEY"):
            errors.append("MEMOAIR_API_KEY is not set; the cloud at MEMOAIR_BASE_URL requires it")
        metrics_token = environ.get("BRIDGE_METRICS_TOKEN", "")
        if metrics_token and len(metrics_token) < _MIN_SECRET_CHARS:
            errors.append(f"BRIDGE_METRICS_TOKEN must have at least {_MIN_SECRET_CHARS} characters")
        model = _read_model(environ, numbers["BRIDGE_MODEL_TIMEOUT_MS"], accepts_unsigned, errors)
        storage_root = environ.get("BRIDGE_STORAGE_ROOT") or None
        if errors:
            raise BridgeSettingsError("the bridge cannot start: " + "; ".join(errors))
        return cls(
            platforms=platforms,
            public_url=public_url,
            caller_salt=salt.encode(),
            secrets=secrets,
            accepts_unsigned=accepts_unsigned,
            project_id=environ.get("MEMOAIR_PROJECT_ID", "proj_acme"),
            agent_id=environ.get("MEMOAIR_AGENT_ID", "agent_returns"),
            api_key=environ.get("MEMOAIR_API_KEY", "memoair_pk_local"),
            cloud_base_url=cloud_base_url,
            storage_root=storage_root,
            port_range=ports,
            max_concurrent_users=numbers["BRIDGE_MAX_CALLERS"],
            recall_timeout_ms=numbers["BRIDGE_RECALL_MS"],
            save_timeout_ms=numbers["BRIDGE_KEEP_MS"],
            max_body_bytes=numbers["BRIDGE_MAX_BODY_MB"] * 1024 * 1024,
            state_folder=_state_folder(environ, storage_root),
            metrics_token=metrics_token.encode(),
            model=model,
        )


def _missing_secrets(platform: str, secrets: Mapping[str, str]) -> list[str]:
    names = SECRETS.get(platform, ())
    if platform == "vapi":
        return [] if any(name in secrets for name in names) else [" or ".join(names)]
    return [name for name in names if name not in secrets]


def _read_model(
    environ: Mapping[str, str], timeout_ms: float, accepts_unsigned: bool, errors: list[str]
) -> ModelSettings | None:
    url = environ.get("BRIDGE_MODEL_URL", "").rstrip("/")
    if not url:
        return None
    secret = environ.get("BRIDGE_MODEL_SECRET", "")
    if not _is_url(url):
        errors.append(
            "BRIDGE_MODEL_URL must be the URL of an OpenAI-compatible model, such as https://api.openai.com/v1"
        )
    if len(secret) < _MIN_SECRET_CHARS and not accepts_unsigned:
        errors.append(
            f"BRIDGE_MODEL_SECRET must have at least {_MIN_SECRET_CHARS} characters; BRIDGE_MODEL_URL requires it"
        )
    return ModelSettings(
        url, environ.get("BRIDGE_MODEL_KEY", ""), environ.get("BRIDGE_MODEL_NAME", ""), secret.encode(), timeout_ms
    )


def _state_folder(environ: Mapping[str, str], storage_root: str | None) -> Path:
    if environ.get("BRIDGE_STATE_DIR"):
        return Path(environ["BRIDGE_STATE_DIR"])
    if storage_root is not None:
        return Path(f"{storage_root.rstrip('/')}-bridge")
    return platformdirs.user_state_path("memoair-bridge", appauthor=False)


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query


def _read_positive_int(environ: Mapping[str, str], name: str, default: int, errors: list[str]) -> int:
    text = environ.get(name, str(default))
    if text.isdecimal() and int(text) > 0:
        return int(text)
    errors.append(f"{name} must be a whole number above 0")
    return default


def _parse_port_range(text: str, errors: list[str]) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 1 << 16:
        return int(first), int(last)
    errors.append("BRIDGE_RUNTIME_PORTS must be FIRST-LAST, such as 7878-7977")
    return 7878, 7977
