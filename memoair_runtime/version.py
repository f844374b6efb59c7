"""The version of this distribution; a module of its own, because the service has enough other work."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version


@lru_cache(maxsize=1)
def installed_version() -> str:
    """Return the version of this distribution. The first lookup takes some milliseconds."""
    try:
        return version("memoair-voice")
    except PackageNotFoundError:
        return "0+unknown"
