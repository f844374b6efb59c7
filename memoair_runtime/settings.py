"""What a runtime is started with: the environment, checked once and made a record."""

import hashlib
import ipaddress
import math
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import platformdirs

DEFAULT_BIND_ADDR = "127.0.0.1:7878"
DEFAULT_CLOUD_BASE_URL = "https://backend.memoair.space"
ORG_ONLY = "org_only"
ORG_ONLY_USER = "__org__"
DEFAULT_PULL_INTERVAL_S = 30.0

_ENV_PREFIX = "MEMOAIR_RUNTIME_"


class SettingsError(ValueError):
    """The environment does not describe a runtime; the message names the variable."""


@attrs.frozen
class RuntimeSettings:
    """One runtime's settings. Secrets are left out of the ``repr``."""

    project_id: str
    user_id: str
    storage_root: Path
    host: str = "127.0.0.1"
    port: int = 7878
    agent_id: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    cloud_key: str | None = attrs.field(default=None, repr=False)
    cloud_base_url: str | None = DEFAULT_CLOUD_BASE_URL
    pull_interval_s: float = DEFAULT_PULL_INTERVAL_S
    org_only: bool = False
    org_file: Path | None = None
    medium_model: Path | None = None
    stops_with_stdin: bool = False
    is_shared: bool = False  # whether another runtime that serves this caller already is to be used instead
    session_id: str | None = None  # the call that it is started for

    @property
    def has_cloud(self) -> bool:
        """Whether there is a cloud to talk to: without, nothing is sent anywhere."""
        return self.cloud_key is not None and self.cloud_base_url is not None

    @property
    def cloud_id(self) -> str | None:
        """Which cloud it is, where there is one: what another has told or been told does not count."""
        if not self.has_cloud or self.cloud_base_url is None:
            return None
        return hashlib.sha256(self.cloud_base_url.encode()).hexdigest()[:16]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "RuntimeSettings":
        """Read the variables of the wire contract; raise `SettingsError` where they don't fit together."""

        def get(name: str) -> str | None:
            return environ.get(_ENV_PREFIX + name) or None

        mode = get("MODE")
        if mode not in (None, ORG_ONLY):
            raise SettingsError(f"{_ENV_PREFIX}MODE is {mode!r}; it can be {ORG_ONLY!r} or unset")
        org_only = mode == ORG_ONLY
        host, port = _parse_bind_addr(get("BIND_ADDR") or DEFAULT_BIND_ADDR)
        storage_root = get("STORAGE_ROOT")
        org_file, medium_model = get("ORG_FILE"), get("MEDIUM_MODEL")
        return cls(
            project_id=_parse_project_id(get("PROJECT_ID"), get("WORKSPACE_ID")),
            user_id=ORG_ONLY_USER if org_only else _require_identifier("USER_ID", get("USER_ID")),
            agent_id=get("AGENT_ID"),
            storage_root=Path(storage_root).absolute() if storage_root else default_storage_root(),
            host=host,
            port=port,
            token=get("TOKEN"),
            cloud_key=_check_key(get("API_KEY") or get("INTERNAL_TOKEN")),
            # One that is set and empty says that there is no cloud.
            cloud_base_url=_parse_base_url(environ.get(f"{_ENV_PREFIX}CLOUD_BASE_URL", DEFAULT_CLOUD_BASE_URL)),
            pull_interval_s=_parse_seconds("PULL_INTERVAL_S", get("PULL_INTERVAL_S") or str(DEFAULT_PULL_INTERVAL_S)),
            org_only=org_only,
            org_file=Path(org_file) if org_file else None,
            medium_model=Path(medium_model) if medium_model else None,
            stops_with_stdin=get("OWNER_PIPE") == "stdin",
            is_shared=get("SHARED") == "1" and not org_only,
            session_id=get("SESSION_ID"),
        )


def default_storage_root() -> Path:
    """The platform's folder for a user's data, and in it ours."""
    return platformdirs.user_data_path("memoair", appauthor=False) / "voice"


def _parse_project_id(project: str | None, workspace: str | None) -> str:
    if project and workspace and project != workspace:
        raise SettingsError(f"{_ENV_PREFIX}PROJECT_ID and {_ENV_PREFIX}WORKSPACE_ID name two different projects")
    return _require_identifier("PROJECT_ID", project or workspace)


def _require_identifier(name: str, value: str | None) -> str:
    if not value:
        raise SettingsError(f"{_ENV_PREFIX}{name} is not set")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{_ENV_PREFIX}{name} is not valid UTF-8") from None
    return value


def _check_key(key: str | None) -> str | None:
    """A key, which will travel in a header; what is wrong with it is said without it."""
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise SettingsError(f"{_ENV_PREFIX}API_KEY or {_ENV_PREFIX}INTERNAL_TOKEN holds a character that no key has")
    return key


def _parse_base_url(url: str) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.username or parts.query or parts.fragment:
        raise SettingsError(f"{_ENV_PREFIX}CLOUD_BASE_URL is not http(s)://HOST, with a port or a path at most")
    return url.rstrip("/")


def _parse_seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SettingsError(f"{_ENV_PREFIX}{name} is {value!r}; it must be a number of seconds above 0")
    return seconds


def _parse_bind_addr(address: str) -> tuple[str, int]:
    """Take ``HOST:PORT`` apart; only loopback, since whoever reaches the port can read a caller's memory."""
    host, _, port_text = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host.lower() == "localhost":
        host = "127.0.0.1"
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65535):
        raise SettingsError(f"{_ENV_PREFIX}BIND_ADDR is {address!r}, which is not HOST:PORT")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise SettingsError(f"{_ENV_PREFIX}BIND_ADDR is {address!r}; only a loopback address is accepted")
    return host, int(port_text)
