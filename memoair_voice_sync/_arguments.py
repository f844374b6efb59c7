"""Validation of arguments before anything is started or sent. Every error names the argument."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memoair_protocol.addresses import parse_base_url
from memoair_protocol.enums import LaneName
from memoair_protocol.identifiers import identifier_problem, stored_identifier_problem
from memoair_protocol.outcomes import MAX_SCORE, is_outcome_name
from memoair_protocol.prompt_template import is_prompt_label

_MAX_TIMEOUT_S = 86_400.0
_NAME_RULE = "must be up to 64 of a-z, 0-9, '.', '_' and '-', and begin with a-z or 0-9"
_NUMBER_HINT = ", and be no number: a number is a version, which is passed as version="
_MAX_TURN_ID_LENGTH = 1_024
LANES = tuple(lane.value for lane in LaneName)


def seconds(name: str, value: float, unit_s: float = 1.0) -> float:
    """Return a timeout in seconds; reduce one of more than a day to a day."""
    return min(positive(name, value) * unit_s, _MAX_TIMEOUT_S)


def secret(name: str, value: object) -> str | None:
    """Return a key or token that is sent in a header. The error message does not contain it."""
    if value is None:
        return None
    checked = text(name, value)
    if not (checked.isascii() and checked.isprintable()):
        raise ValueError(f"{name} contains a character that is invalid in a key")
    return checked or None


def path(name: str, value: object) -> str | None:
    """Return a path with ``~`` expanded."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a str or a path, not {type(value).__name__}")
    # Not with Path, which shortens "./runtime" in this folder to "runtime", a name that is looked up on the PATH.
    return os.path.expanduser(value) or None  # noqa: PTH111


def existing_file(name: str, value: object) -> str | None:
    """Return the path of an existing file."""
    checked = path(name, value)
    if checked is not None and not Path(checked).is_file():
        raise ValueError(f"{name} is not a file: {checked}")
    return checked


def text(name: str, value: object) -> str:
    """Return a text, which may be empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    return value


def identifier(name: str, value: object) -> str:
    """Return an id that runtimes and clouds accept, see `memoair_protocol.identifiers`."""
    checked = text(name, value)
    if problem := identifier_problem(checked):
        raise ValueError(f"{name} {problem}")
    return checked


def stored_identifier(name: str, value: object) -> str:
    """Return an id that this or an earlier version may have stored data under."""
    checked = text(name, value)
    if problem := stored_identifier_problem(checked):
        raise ValueError(f"{name} {problem}")
    return checked


def turn_identifier(name: str, value: object) -> str:
    """Return the id of a turn: a nonempty text of limited length. It is data of the turn, and no header or folder."""
    checked = stored_identifier(name, value)
    if len(checked) > _MAX_TURN_ID_LENGTH:
        raise ValueError(f"{name} is longer than {_MAX_TURN_ID_LENGTH} characters")
    return checked


def optional_turn_identifier(name: str, value: object) -> str | None:
    """Return the id of a turn or None."""
    return None if value is None else turn_identifier(name, value)


def required_secret(name: str, value: object) -> str:
    """Return a key that is sent in a header and must not be empty. The error message does not contain it."""
    checked = secret(name, text(name, value))
    if checked is None:
        raise ValueError(f"{name} is empty")
    return checked


def optional_identifier(name: str, value: object) -> str | None:
    """Return an identifier or None."""
    return None if value is None else identifier(name, value)


def base_url(name: str, value: object) -> str | None:
    """Return the URL of a cloud without a trailing slash; None means no cloud."""
    if value is None:
        return None
    checked = text(name, value)
    url = parse_base_url(checked)
    if url is None:
        raise ValueError(f"{name} must be http(s)://HOST with an optional port and path, or None for no cloud")
    return url


def lanes(value: Sequence[str] | None) -> list[str] | None:
    """Return a list of lane names; None means all lanes."""
    if value is None:
        return None
    if not isinstance(value, Sequence):
        raise TypeError(f"lanes must be a list, not {type(value).__name__}")
    if isinstance(value, str) or not all(lane in LANES for lane in value):
        raise ValueError(f"lanes must be a list of lane names: {', '.join(LANES)}")
    return list(value)


def mapping(name: str, value: object) -> dict[str, Any]:
    """Return a copy of a mapping as a dict; None means an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    return dict(value)


def json_mapping(name: str, value: object) -> dict[str, Any]:
    """Return a dict that is sent later; reject now what JSON cannot encode."""
    checked = mapping(name, value)
    try:
        json.dumps(checked, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        error_type = TypeError if isinstance(error, TypeError) else ValueError
        raise error_type(f"{name} cannot be encoded as JSON: {error}") from None
    return checked


def items(name: str, value: object) -> Sequence[Any]:
    """Return a list of dicts, whose items the caller of this function checks."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of dicts, not {type(value).__name__}")
    return value


def json_mappings(name: str, value: object) -> list[dict[str, Any]]:
    """Return a list of dicts that are sent later; None means an empty one."""
    entries = () if value is None else items(name, value)
    return [json_mapping(f"{name}[{position}]", entry) for position, entry in enumerate(entries)]


def optional_text(name: str, value: object) -> str | None:
    """Return a text or None."""
    return None if value is None else text(name, value)


def positive(name: str, value: object) -> float:
    """Return a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not value > 0 or math.isinf(value):
        raise ValueError(f"{name} must be positive and finite, not {value}")
    return value


def prompt_label(name: str, value: object) -> str:
    """Return the name of a label of a prompt."""
    checked = text(name, value)
    if not is_prompt_label(checked):
        raise ValueError(f"{name} {_NAME_RULE}{_NUMBER_HINT if checked.isdigit() else ''}")
    return checked


def outcome_name(name: str, value: object) -> str:
    """Return the name of an outcome."""
    checked = text(name, value)
    if not is_outcome_name(checked):
        raise ValueError(f"{name} {_NAME_RULE}")
    return checked


def outcome_score(name: str, value: object) -> float | None:
    """Return a score within the limits of the cloud, or None."""
    if value is None:
        return None
    checked = finite(name, value)
    if abs(checked) > MAX_SCORE:
        raise ValueError(f"{name} must be from {-MAX_SCORE:.0e} to {MAX_SCORE:.0e}")
    return checked


def finite(name: str, value: object) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}")
    return value


def fraction(name: str, value: object) -> float:
    """Return a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value}")
    return value


def limit(name: str, value: object) -> float | None:
    """Return a positive number; None means no limit."""
    return None if value is None else positive(name, value)


def count(name: str, value: object) -> int:
    """Return a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1")
    return value


def flag(name: str, value: object) -> bool:
    """Return a bool. Other values are rejected even if truthy: they are usually a mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def port_range(name: str, value: Sequence[Any]) -> tuple[int, int]:
    """Return the first and the last port of a range."""
    try:
        first, last = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two ports, the first and the last") from None
    if not all(isinstance(port, int) and 0 < port < 1 << 16 for port in (first, last)) or first > last:
        raise ValueError(f"{name} must be two ports from 1 to 65535, the first not above the last")
    return first, last


def choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError unless the value is one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}")
