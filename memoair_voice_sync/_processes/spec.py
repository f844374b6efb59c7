"""What a runtime is started with: its user, its settings and its environment."""

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from memoair_protocol.defaults import ORG_ONLY_MODE
from memoair_protocol.processes import ENV_PREFIX
from memoair_voice_sync._processes.runtime_selection import RuntimeSelection, validate_reference
from memoair_voice_sync._processes.spawn import inherited_env


@attrs.frozen
class RuntimeSpec:
    """The settings of a runtime. The ``repr`` does not show secrets."""

    project_id: str
    user_id: str
    agent_id: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    internal_token: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    cloud_base_url: str | None = None  # None means no cloud
    storage_root: str | None = None
    org_only: bool = False
    org_file: str | None = None
    session_id: str | None = None
    is_shared: bool = False
    binary: str | None = None
    version: str | None = None
    repo: str | None = None
    cache_dir: str | None = None

    def __attrs_post_init__(self) -> None:
        """Reject an invalid repository or version where it is given, not on the first call."""
        validate_reference(self.repo, self.version)

    def environment(self, bind_addr: str) -> dict[str, str]:
        """Return the environment to start the runtime with. It holds the secrets: command lines are public."""
        settings = {
            "BIND_ADDR": bind_addr,
            "PROJECT_ID": self.project_id,
            "WORKSPACE_ID": self.project_id,
            "USER_ID": self.user_id,
            "AGENT_ID": self.agent_id,
            "API_KEY": self.api_key,
            "INTERNAL_TOKEN": self.internal_token,
            "TOKEN": self.token,
            "CLOUD_BASE_URL": self.cloud_base_url or "",
            "STORAGE_ROOT": str(Path(self.storage_root).absolute()) if self.storage_root else None,
            "ORG_FILE": str(Path(self.org_file).absolute()) if self.org_file else None,
            "MODE": ORG_ONLY_MODE if self.org_only else None,
            "SESSION_ID": self.session_id,
            "SHARED": "1" if self.is_shared else None,
            "OWNER_PIPE": "stdin",
        }
        return inherited_env() | {f"{ENV_PREFIX}{name}": value for name, value in settings.items() if value is not None}

    def selection(self, environ: Mapping[str, str] = os.environ) -> RuntimeSelection:
        """Return the runtime that the arguments, or else the environment, select."""
        return RuntimeSelection.of(self.binary, self.repo, self.version, self.cache_dir, environ)
