"""Settings of a runtime: the environment, validated once and turned into a record."""

import math
from collections.abc import Mapping
from pathlib import Path

import attrs

from memoair_protocol.addresses import is_loopback, parse_base_url
from memoair_protocol.defaults import CLOUD_BASE_URL, ORG_ONLY_MODE, ORG_ONLY_USER, RUNTIME_HOST, RUNTIME_PORT
from memoair_protocol.enums import TraceMode
from memoair_protocol.hashes import cloud_id_of as cloud_id_of
from memoair_protocol.identifiers import identifier_problem, stored_identifier_problem
from memoair_protocol.processes import ENV_PREFIX
from memoair_protocol.retention import MAX_RETENTION_DAYS
from memoair_protocol.storage_root import default_storage_root as default_storage_root

DEFAULT_PULL_INTERVAL_S = 30.0


class SettingsError(ValueError):
    """The environment is invalid; the message names the variable."""


@attrs.frozen
class RuntimeSettings:
    """The settings of one runtime. Secrets do not appear in the ``repr``.

    Attributes:
        project_id: The project to serve.
        user_id: The user to serve; `ORG_ONLY_USER` in org-only mode.
        storage_root: Folder under which all data is stored.
        host: Loopback address to listen on.
        port: Port to listen on; 0 means any free one.
        agent_id: The agent, as reported to the cloud.
        token: Bearer token that requests must carry; None trusts every local client.
        cloud_key: API key or internal token for the cloud; without one there is no sync.
        cloud_base_url: URL of the cloud without a trailing slash; None turns sync off.
        pull_interval_s: Seconds between two pulls from the cloud.
        org_only: Whether only documents are searched and nothing is saved.
        org_file: JSON Lines file with the organization's documents; replaces those of the cloud.
        medium_model: Folder with the transformer of the variant ``medium``.
        stops_with_stdin: Whether the end of standard input stops the runtime.
        is_shared: Whether to leave the user to another runtime that already serves it on this machine.
        session_id: The session for which the runtime is started.
        recall_traces: What is kept of searches that do not say so themselves; None for what the project says.
        retention_days: For how many days turns are kept on this machine, whatever the cloud says; None for ever.
    """

    project_id: str
    user_id: str
    storage_root: Path
    host: str = RUNTIME_HOST
    port: int = RUNTIME_PORT
    agent_id: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    cloud_key: str | None = attrs.field(default=None, repr=False)
    cloud_base_url: str | None = CLOUD_BASE_URL
    pull_interval_s: float = DEFAULT_PULL_INTERVAL_S
    org_only: bool = False
    org_file: Path | None = None
    medium_model: Path | None = None
    stops_with_stdin: bool = False
    is_shared: bool = False
    session_id: str | None = None
    recall_traces: TraceMode | None = None
    retention_days: int | None = None

    @property
    def has_cloud(self) -> bool:
        """Whether a cloud is configured; otherwise nothing leaves the machine."""
        return self.cloud_key is not None and self.cloud_base_url is not None

    @property
    def cloud_id(self) -> str | None:
        """An id of the configured cloud, or None. Sync state is kept per cloud: that of another one does not count."""
        if not self.has_cloud or self.cloud_base_url is None:
            return None
        return cloud_id_of(self.cloud_base_url)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "RuntimeSettings":
        """Parse and validate the environment variables of a runtime.

        Args:
            environ: Variables by name; those without the prefix ``MEMOAIR_RUNTIME_`` are ignored, and an empty variable
                counts as unset.

        Raises:
            SettingsError: If a variable is missing or invalid, or two of them contradict each other.
        """

        def get(name: str) -> str | None:
            return environ.get(ENV_PREFIX + name) or None

        mode = get("MODE")
        if mode not in (None, ORG_ONLY_MODE):
            raise SettingsError(f"{ENV_PREFIX}MODE is {mode!r}; use {ORG_ONLY_MODE!r} or leave it unset")
        org_only = mode == ORG_ONLY_MODE
        host, port = _parse_bind_addr(get("BIND_ADDR") or f"{RUNTIME_HOST}:{RUNTIME_PORT}")
        storage_root = get("STORAGE_ROOT")
        org_file, medium_model = get("ORG_FILE"), get("MEDIUM_MODEL")
        return cls(
            project_id=_parse_project_id(get("PROJECT_ID"), get("WORKSPACE_ID")),
            user_id=ORG_ONLY_USER if org_only else _require_identifier("USER_ID", get("USER_ID")),
            agent_id=_check_identifier("AGENT_ID", get("AGENT_ID")),
            storage_root=Path(storage_root).absolute() if storage_root else default_storage_root(),
            host=host,
            port=port,
            token=get("TOKEN"),
            cloud_key=_check_key(get("API_KEY") or get("INTERNAL_TOKEN")),
            # Unlike the other variables, this one may be set to nothing: there is no cloud then.
            cloud_base_url=_parse_base_url(environ.get(f"{ENV_PREFIX}CLOUD_BASE_URL", CLOUD_BASE_URL)),
            pull_interval_s=_parse_seconds("PULL_INTERVAL_S", get("PULL_INTERVAL_S") or str(DEFAULT_PULL_INTERVAL_S)),
            org_only=org_only,
            org_file=Path(org_file) if org_file else None,
            medium_model=Path(medium_model) if medium_model else None,
            stops_with_stdin=get("OWNER_PIPE") == "stdin",
            is_shared=get("SHARED") == "1" and not org_only,
            session_id=_check_identifier("SESSION_ID", get("SESSION_ID")),
            recall_traces=_parse_trace_mode(get("RECALL_TRACES")),
            retention_days=_parse_days("RETENTION_DAYS", get("RETENTION_DAYS")),
        )


def _parse_project_id(project: str | None, workspace: str | None) -> str:
    if project and workspace and project != workspace:
        raise SettingsError(
            f"{ENV_PREFIX}PROJECT_ID and {ENV_PREFIX}WORKSPACE_ID name two different projects; set one of them"
        )
    return _require_identifier("PROJECT_ID", project or workspace)


def _require_identifier(name: str, value: str | None) -> str:
    """Return the id of a user or project. One that only an earlier version accepted can still be read and erased."""
    if not value:
        raise SettingsError(f"{ENV_PREFIX}{name} is required but not set")
    if problem := stored_identifier_problem(value):
        raise SettingsError(f"{ENV_PREFIX}{name} {problem}")
    return value


def _check_identifier(name: str, value: str | None) -> str | None:
    if value is not None and (problem := identifier_problem(value)):
        raise SettingsError(f"{ENV_PREFIX}{name} {problem}")
    return value


def _check_key(key: str | None) -> str | None:
    """Check that the key is a valid header value. The error message does not contain the key."""
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise SettingsError(
            f"{ENV_PREFIX}API_KEY or {ENV_PREFIX}INTERNAL_TOKEN contains an invalid character; use printable ASCII "
            "without surrounding spaces"
        )
    return key


def _parse_base_url(url: str) -> str | None:
    if not url:
        return None
    if (checked := parse_base_url(url)) is None:
        raise SettingsError(
            f"{ENV_PREFIX}CLOUD_BASE_URL is invalid; use http(s)://HOST, optionally with a port and a path"
        )
    return checked


def _parse_trace_mode(value: str | None) -> TraceMode | None:
    try:
        return None if value is None else TraceMode(value)
    except ValueError:
        modes = ", ".join(mode.value for mode in TraceMode)
        raise SettingsError(f"{ENV_PREFIX}RECALL_TRACES is {value!r}; use one of {modes}") from None


def _parse_seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SettingsError(f"{ENV_PREFIX}{name} is {value!r}; use a number of seconds above 0")
    return seconds


def _parse_days(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MAX_RETENTION_DAYS):
        raise SettingsError(f"{ENV_PREFIX}{name} is {value!r}; use a number of days from 1 to {MAX_RETENTION_DAYS}")
    return int(value)


def _parse_bind_addr(address: str) -> tuple[str, int]:
    """Split ``HOST:PORT``. Only loopback is accepted: a client that reaches the port can read the user's memory."""
    host, _, port_text = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host.lower() == "localhost":
        host = "127.0.0.1"
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65535):
        raise SettingsError(f"{ENV_PREFIX}BIND_ADDR is {address!r}; use HOST:PORT")
    if not is_loopback(host):
        raise SettingsError(f"{ENV_PREFIX}BIND_ADDR is {address!r}; use a loopback address such as 127.0.0.1")
    return host, int(port_text)
