"""Which program serves as the runtime, and with which environment."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import attrs

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._runtime_selection import RuntimeSelection, validate_reference

ORG_ONLY_USER = "__org__"

# What the runtime needs of the application's environment. Nothing else of it is passed on: it holds other secrets.
_INHERITED_ENV = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP", "XDG_DATA_HOME",
    "USERPROFILE", "APPDATA", "LOCALAPPDATA", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME",
    "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE",
    "MEMOAIR_RUNTIME_ORG_FILE", "MEMOAIR_RUNTIME_STORAGE_ROOT", "MEMOAIR_RUNTIME_MEDIUM_MODEL",
    "MEMOAIR_RUNTIME_PULL_INTERVAL_S",
    # The way to the cloud.
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
_PATH_VARIABLES = frozenset(
    [
        "MEMOAIR_RUNTIME_ORG_FILE", "MEMOAIR_RUNTIME_STORAGE_ROOT", "MEMOAIR_RUNTIME_MEDIUM_MODEL",
        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR",
    ]
)  # fmt: skip


@attrs.frozen
class RuntimeSpec:
    """The runtime that a client wants: for whom, from where, and with what. Secrets are left out of the ``repr``."""

    project_id: str
    user_id: str
    agent_id: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    internal_token: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    cloud_base_url: str | None = None  # None: there is no cloud
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
        """What is named wrongly in the code is told where it is named, not at the first call."""
        validate_reference(self.repo, self.version)

    def environment(self, bind_addr: str) -> dict[str, str]:
        """The environment to start it with; secrets go this way, never by the command line, which anybody can read."""
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
            "MODE": "org_only" if self.org_only else None,
            "SESSION_ID": self.session_id,
            "SHARED": "1" if self.is_shared else None,
            "OWNER_PIPE": "stdin",
        }
        return inherited_env() | {
            f"MEMOAIR_RUNTIME_{name}": value for name, value in settings.items() if value is not None
        }

    def selection(self, environ: Mapping[str, str] = os.environ) -> RuntimeSelection:
        """Which runtime is to run, as the arguments and then the environment say."""
        return RuntimeSelection.of(self.binary, self.repo, self.version, self.cache_dir, environ)


def inherited_env() -> dict[str, str]:
    """What a runtime gets of the application's environment."""
    environment = {name: os.environ[name] for name in _INHERITED_ENV if name in os.environ}
    for name in filter(environment.get, _PATH_VARIABLES):  # it starts in another folder
        environment[name] = str(Path(environment[name]).absolute())
    if "PYTHONPATH" in os.environ:
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries if entry)
    return environment


def start_program(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes], stdin: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    """Start a program of ours; raises ``runtime.start_failed``.

    Its standard input tells it, by closing, that we are gone. Ctrl-C does not reach it: that is for the application,
    which may have last turns to save.
    """
    try:
        return subprocess.Popen(  # noqa: S603 - the program is the operator's choice
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=Path(sys.executable or "/").anchor,  # `python -m` looks for modules where it starts
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"{command[0]} could not be started: {reason}"
        raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
