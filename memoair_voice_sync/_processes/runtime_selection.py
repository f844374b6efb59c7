"""The selection of a runtime: a named program, one that is pulled, or the one installed with this package."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from memoair_voice_sync.errors import MemoAirVoiceMemoryError

if TYPE_CHECKING:
    from memoair_runtime_store.reference import Reference

_BINARY, _REPO, _VERSION = "MEMOAIR_RUNTIME_BINARY", "MEMOAIR_RUNTIME_REPO", "MEMOAIR_RUNTIME_VERSION"
_CACHE_DIR = "MEMOAIR_RUNTIME_CACHE_DIR"


class RuntimeKind(Enum):
    """The origin of a runtime."""

    BINARY = "binary"  # a program on this machine that is named explicitly
    PULLED = "pulled"  # an artifact or a release that is pulled into the cache
    BUNDLED = "bundled"  # the one installed with this package


@attrs.frozen
class RuntimeSelection:
    """The runtime to start, and in ``why`` the reason in words."""

    kind: RuntimeKind
    why: str
    binary: str | None = None
    repo: str | None = None
    version: str | None = None
    cache_dir: str | None = None
    names: tuple[str, str] = ("runtime_repo", "runtime_version")  # the argument or variable that gave each

    @staticmethod
    def of(
        binary: str | None, repo: str | None, version: str | None, cache_dir: str | None, environ: Mapping[str, str]
    ) -> "RuntimeSelection":
        """Select a runtime: first a named program, then one to be pulled, then the installed one.

        An argument takes precedence over its variable; an empty variable counts as unset.
        """
        cache_dir = cache_dir or environ.get(_CACHE_DIR) or None
        if binary or environ.get(_BINARY):
            why = "runtime_binary names it" if binary else f"{_BINARY} names it"
            return RuntimeSelection(RuntimeKind.BINARY, why, binary=binary or environ.get(_BINARY), cache_dir=cache_dir)
        selected_repo, selected_version = repo or environ.get(_REPO) or None, version or environ.get(_VERSION) or None
        names = ("runtime_repo" if repo else _REPO, "runtime_version" if version else _VERSION)
        if selected_repo is None and selected_version is None:
            return RuntimeSelection(RuntimeKind.BUNDLED, "nothing else is named", cache_dir=cache_dir)
        if selected_repo is None and selected_version == installed_version():
            why = f"{names[1]} names the version that is installed"
            return RuntimeSelection(RuntimeKind.BUNDLED, why, cache_dir=cache_dir)
        sources = [
            name for name, value in zip(names, (selected_repo, selected_version), strict=True) if value is not None
        ]
        return RuntimeSelection(
            RuntimeKind.PULLED,
            f"{' and '.join(sources)} {'name' if len(sources) > 1 else 'names'} it",
            repo=selected_repo,
            version=selected_version,
            cache_dir=cache_dir,
            names=names,
        )

    @property
    def can_be_forked(self) -> bool:
        """Whether it is the installed one under this Python, which the fork server can start."""
        return self.kind is RuntimeKind.BUNDLED and python_executable() is not None

    def reference(self) -> "Reference":
        """Return the reference to pull; raise ``runtime.not_found`` if it is invalid."""
        from memoair_runtime_store.reference import parse_reference

        try:
            return parse_reference(self.repo, self.version, installed_version(), self.names)
        except ValueError as error:
            raise MemoAirVoiceMemoryError("runtime.not_found", str(error)) from error

    def cache_folder(self) -> Path:
        """Return the folder in which pulled runtimes are stored."""
        from memoair_runtime_store.cache import default_cache_dir

        return Path(self.cache_dir).expanduser() if self.cache_dir else default_cache_dir()


def validate_reference(repo: str | None, version: str | None) -> None:
    """Raise TypeError or ValueError for an invalid repository or version; None means the environment's."""
    for name, value in (("runtime_repo", repo), ("runtime_version", version)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    selection = RuntimeSelection.of(None, repo, version, None, os.environ)
    if (repo or version) and selection.kind is RuntimeKind.PULLED:
        from memoair_runtime_store.reference import parse_reference

        parse_reference(selection.repo, selection.version, installed_version(), selection.names)


def find_binary(name: str) -> str:
    """Return the path of a named program; raise ``runtime.not_found``."""
    found = shutil.which(name)
    if found is not None:
        return str(Path(found).absolute())
    if Path(name).exists():
        raise MemoAirVoiceMemoryError("runtime.not_found", f"{name} is not an executable program")
    raise MemoAirVoiceMemoryError("runtime.not_found", f"there is no program {name}")


def bundled_command() -> list[str]:
    """Return the command that starts the installed runtime; raise ``runtime.not_found``."""
    python = python_executable()
    if python is not None:
        return [python, "-m", "memoair_runtime"]
    script = shutil.which("voice-runtime", path=sysconfig.get_path("scripts")) or shutil.which("voice-runtime")
    if script is None:
        message = "voice-runtime is neither beside this Python nor on the PATH; name it with runtime_binary"
        raise MemoAirVoiceMemoryError("runtime.not_found", message)
    return [script]


@cache
def installed_version() -> str | None:
    """Return the version of this package, or None if it is not installed."""
    try:
        return metadata.version("memoair-voice")
    except metadata.PackageNotFoundError:
        return None


@cache
def python_executable() -> str | None:
    """Return the interpreter of this environment, or None.

    In a server that embeds Python, such as uWSGI, ``sys.executable`` is the server.
    """
    if "python" in Path(sys.executable or "").name.lower():
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return shutil.which(version, path=sysconfig.get_path("scripts"))
