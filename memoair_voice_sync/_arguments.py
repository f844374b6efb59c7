"""What a caller hands in, checked before anything is started or sent; an error names the argument."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_MAX_TIMEOUT_S = 86_400.0
_MAX_ID_LENGTH = 1_024
LANES = ("profile", "working", "permanent", "org")


def seconds(name: str, value: float, unit_s: float = 1.0) -> float:
    """A time-out in seconds, checked; one that is longer than a day is a day."""
    return min(positive(name, value) * unit_s, _MAX_TIMEOUT_S)


def secret(name: str, value: object) -> str | None:
    """A key or token, which will travel in a header; what is wrong with it is said without it."""
    if value is None:
        return None
    checked = text(name, value)
    if not (checked.isascii() and checked.isprintable()):
        raise ValueError(f"{name} holds a character that no key has")
    return checked or None


def path(name: str, value: object) -> str | None:
    """A path, with ``~`` made the user's folder."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a str or a path, not {type(value).__name__}")
    # Not by Path, which makes "./runtime" of this folder a "runtime" of the PATH.
    return os.path.expanduser(value) or None  # noqa: PTH111


def existing_file(name: str, value: object) -> str | None:
    """The path of a file that is there."""
    checked = path(name, value)
    if checked is not None and not Path(checked).is_file():
        raise ValueError(f"{name} is {checked}, where there is no file")
    return checked


def text(name: str, value: object) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    return value


def identifier(name: str, value: object) -> str:
    """An id: a text that is not empty, not too long, and that a file name and the environment can be made of."""
    checked = text(name, value)
    if not checked:
        raise ValueError(f"{name} is empty")
    try:
        checked.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not valid Unicode") from None
    if len(checked) > _MAX_ID_LENGTH:
        raise ValueError(f"{name} is longer than {_MAX_ID_LENGTH} characters")
    if "\0" in checked:
        raise ValueError(f"{name} holds a null character")
    return checked


def base_url(name: str, value: object) -> str | None:
    """The address of a cloud; None is no cloud."""
    if value is None:
        return None
    checked = text(name, value)
    try:
        parts = urlsplit(checked)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{name} must be http(s)://HOST, with a port or a path at most, or None for no cloud")
    return checked.rstrip("/")


def lanes(value: Sequence[str] | None) -> list[str] | None:
    """A choice of lanes; None is all of them."""
    if value is None:
        return None
    if not isinstance(value, Sequence):
        raise TypeError(f"lanes must be a list, not {type(value).__name__}")
    if isinstance(value, str) or not all(lane in LANES for lane in value):
        raise ValueError(f"lanes must be a list of some of {', '.join(LANES)}")
    return list(value)


def mapping(name: str, value: object) -> dict[str, Any]:
    """A dict; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    return dict(value)


def json_mapping(name: str, value: object) -> dict[str, Any]:
    """A dict that will be sent later: what JSON can't hold is told now."""
    checked = mapping(name, value)
    try:
        json.dumps(checked, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        error_type = TypeError if isinstance(error, TypeError) else ValueError
        raise error_type(f"{name} holds what JSON can't: {error}") from None
    return checked


def items(name: str, value: object) -> Sequence[Any]:
    """A list of dicts, which are checked one by one."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of dicts, not {type(value).__name__}")
    return value


def json_mappings(name: str, value: object) -> list[dict[str, Any]]:
    """A list of dicts that will be sent later; None is an empty one."""
    entries = () if value is None else items(name, value)
    return [json_mapping(f"{name}[{position}]", entry) for position, entry in enumerate(entries)]


def optional_text(name: str, value: object) -> str | None:
    """A text, or None."""
    return None if value is None else text(name, value)


def turn_metadata(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """A turn's metadata, whose ``heard`` is a text where it is told."""
    if metadata.get("heard") is not None:
        text(f'{name}["heard"]', metadata["heard"])
    return metadata


def positive(name: str, value: object) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not value > 0 or math.isinf(value):
        raise ValueError(f"{name} must be positive and finite, not {value}")
    return value


def limit(name: str, value: object) -> float | None:
    """A number above 0; None is no limit."""
    return None if value is None else positive(name, value)


def count(name: str, value: object) -> int:
    """A number of things, at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1")
    return value


def flag(name: str, value: object) -> bool:
    """True or False; what is only as good as either is most often a mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def port_range(name: str, value: Sequence[Any]) -> tuple[int, int]:
    """The first and the last of a range of ports."""
    try:
        first, last = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two ports, the first and the last") from None
    if not all(isinstance(port, int) and 0 < port < 1 << 16 for port in (first, last)) or first > last:
        raise ValueError(f"{name} must be two ports from 1 to 65535, the first not above the last")
    return first, last


def choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """One of some texts."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}")
