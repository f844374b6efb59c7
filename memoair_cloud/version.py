"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Return the version of the installed package; ``0+unknown`` if it is not installed."""
    try:
        return version("memoair-voice")
    except PackageNotFoundError:
        return "0+unknown"
