"""Start the runtime and the fork server, with no more of the application's environment than they need."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from memoair_voice_sync._after_fork import starting_program
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# What a runtime inherits of the application's environment. Nothing else is passed on: it may contain other secrets.
_INHERITED_ENV = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP", "XDG_DATA_HOME",
    "USERPROFILE", "APPDATA", "LOCALAPPDATA", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME",
    "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE",
    "MEMOAIR_RUNTIME_ORG_FILE", "MEMOAIR_RUNTIME_STORAGE_ROOT", "MEMOAIR_RUNTIME_MEDIUM_MODEL",
    "MEMOAIR_RUNTIME_PULL_INTERVAL_S",
    # The network path to the cloud.
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
_PATH_VARIABLES = frozenset(
    [
        "MEMOAIR_RUNTIME_ORG_FILE", "MEMOAIR_RUNTIME_STORAGE_ROOT", "MEMOAIR_RUNTIME_MEDIUM_MODEL",
        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR",
    ]
)  # fmt: skip


def inherited_env() -> dict[str, str]:
    """Return the variables that a runtime inherits from the application."""
    environment = {name: os.environ[name] for name in _INHERITED_ENV if name in os.environ}
    for name in filter(environment.get, _PATH_VARIABLES):  # the program starts in another folder
        environment[name] = str(Path(environment[name]).absolute())
    if "PYTHONPATH" in os.environ:
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries if entry)
    return environment


def start_program(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes], stdin: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    """Start a program; raise ``runtime.start_failed`` if that fails.

    Its standard input closes when this process ends, in whatever way. Ctrl-C does not reach it, only the application,
    which may have last turns to save.
    """
    try:
        with starting_program():
            return subprocess.Popen(  # noqa: S603 - the operator chooses the program
                command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=Path(sys.executable or "/").anchor,  # `python -m` searches the folder where it starts for modules
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"{command[0]} could not be started: {reason}"
        raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
