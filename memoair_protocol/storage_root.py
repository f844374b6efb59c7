"""Where memories are stored on this machine; a module of its own, because platformdirs is imported only for it."""

import os
from collections.abc import Mapping
from pathlib import Path

from memoair_protocol.processes import ENV_PREFIX


def default_storage_root() -> Path:
    """Return the default storage root in the platform's folder for user data."""
    import platformdirs

    return platformdirs.user_data_path("memoair", appauthor=False) / "voice"


def resolve_storage_root(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the storage root that the runtimes of a client use.

    Args:
        given: The argument of the client. None means the variable of runtimes, or else the default.
        environ: The variables, by name.
    """
    chosen = given or environ.get(f"{ENV_PREFIX}STORAGE_ROOT")
    return Path(chosen).absolute() if chosen else default_storage_root()
