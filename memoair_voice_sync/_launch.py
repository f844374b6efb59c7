"""Which program serves as the runtime, and with which environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO

import attrs

from memoair_voice_sync._errors import MemoAirVoiceMemoryError

ORG_ONLY_USER = "__org__"
DEFAULT_REPO = "ghcr.io/memoair/memoair-runtime"

# What the runtime needs of the application's environment. Nothing else of it is passed on: it holds other secrets.
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP", "XDG_DATA_HOME",
    "USERPROFILE", "APPDATA", "LOCALAPPDATA", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME",
    "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE",
    "MEMOAIR_RUNTIME_ORG_FILE", "MEMOAIR_RUNTIME_STORAGE_ROOT", "MEMOAIR_RUNTIME_MEDIUM_MODEL",
    "MEMOAIR_RUNTIME_PULL_INTERVAL_S",
    # The way to the cloud.
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
_PATHS = frozenset(
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
    shares: bool = False
    binary: str | None = None
    version: str | None = None
    repo: str | None = None
    cache_dir: str | None = None

    def environment(self, bind_addr: str) -> dict[str, str]:
        """The environment to start it with; secrets go this way, never by the command line, which anybody can read."""
        wanted = {
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
            "SHARED": "1" if self.shares else None,
            "OWNER_PIPE": "stdin",
        }
        return passed_on() | {f"MEMOAIR_RUNTIME_{name}": value for name, value in wanted.items() if value is not None}

    def command(self, environ: Mapping[str, str] = os.environ) -> list[str]:
        """The command that starts it; raises ``runtime.not_found`` where there is none.

        A program that is named comes first (``binary``, then MEMOAIR_RUNTIME_BINARY), then a version that is asked for
        and lies in the cache, then the runtime that was installed with this package.
        """
        named = self.binary or environ.get("MEMOAIR_RUNTIME_BINARY")
        if named:
            return [_find(named)]
        version = self.version or environ.get("MEMOAIR_RUNTIME_VERSION")
        if version and version != _installed_version():
            return [self._cached(version, environ)]
        return _installed()

    def is_bundled(self, environ: Mapping[str, str] = os.environ) -> bool:
        """Whether the runtime that was installed with this package is to be used, under this Python."""
        version = self.version or environ.get("MEMOAIR_RUNTIME_VERSION")
        is_named = self.binary or environ.get("MEMOAIR_RUNTIME_BINARY")
        is_other = version and version != _installed_version()
        return not is_named and not is_other and _is_python()

    def _cached(self, version: str, environ: Mapping[str, str]) -> str:
        repo = self.repo or environ.get("MEMOAIR_RUNTIME_REPO") or DEFAULT_REPO
        cache = self.cache_dir or environ.get("MEMOAIR_RUNTIME_CACHE_DIR")
        if cache:
            for name in ("voice-runtime", "voice-runtime.exe"):
                program = Path(cache) / version / name
                if program.is_file():
                    return str(program.absolute())
        where = f"in {cache}" if cache else "anywhere: no runtime_cache_dir is set"
        message = f"version {version} of {repo} is not {where}; leave runtime_version out to use the installed runtime"
        raise MemoAirVoiceMemoryError("runtime.not_found", message)


def passed_on() -> dict[str, str]:
    """What a runtime gets of the application's environment."""
    result = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    for name in filter(result.get, _PATHS):  # it starts in another folder
        result[name] = str(Path(result[name]).absolute())
    if "PYTHONPATH" in os.environ:
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        result["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries if entry)
    return result


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


def _find(named: str) -> str:
    found = shutil.which(named)
    if found is not None:
        return str(Path(found).absolute())
    if Path(named).exists():
        raise MemoAirVoiceMemoryError("runtime.not_found", f"{named} is not a program that can be run")
    raise MemoAirVoiceMemoryError("runtime.not_found", f"there is no program {named}")


def _installed_version() -> str | None:
    try:
        return metadata.version("memoair-voice")
    except metadata.PackageNotFoundError:
        return None


def _is_python() -> bool:
    return "python" in Path(sys.executable or "").name.lower()


def _installed() -> list[str]:
    if _is_python():
        return [sys.executable, "-m", "memoair_runtime"]
    # Within a server that embeds Python, sys.executable is the server.
    script = shutil.which("voice-runtime", path=sysconfig.get_path("scripts")) or shutil.which("voice-runtime")
    if script is None:
        message = "voice-runtime is neither beside this Python nor on the PATH; name it with runtime_binary"
        raise MemoAirVoiceMemoryError("runtime.not_found", message)
    return [script]
