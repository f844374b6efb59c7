"""What is kept of searches: the argument of a client, then the environment, then what the project says."""

import os

from memoair_protocol.enums import RecallOrigin, TraceMode

VARIABLE = "MEMOAIR_RECALL_TRACES"
_ORIGINS = tuple(origin.value for origin in RecallOrigin)
_MODES = ", ".join(mode.value for mode in TraceMode)


def parse_trace_mode(name: str, value: object) -> TraceMode | None:
    """Return a mode by its name; None means that nothing is set. The error names the argument and its value."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    try:
        return TraceMode(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {_MODES}, not {value!r}") from None


def choose_trace_mode(argument: object) -> TraceMode | None:
    """Return the mode of a client; None leaves it to the project, whose default is ``ids``."""
    mode = parse_trace_mode("recall_traces", argument)
    return parse_trace_mode(VARIABLE, os.environ.get(VARIABLE) or None) if mode is None else mode


def check_origin(value: object) -> str:
    """Return who asks for a search; raise ValueError for an unknown origin."""
    if value not in _ORIGINS:
        raise ValueError(f"origin must be one of {', '.join(_ORIGINS)}, not {value!r}")
    return str(value)
