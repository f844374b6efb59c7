"""How long a prompt counts as fresh: the argument of a client, then the environment, then a minute."""

import os

import memoair_voice_sync._arguments as check

VARIABLE = "MEMOAIR_PROMPT_FRESH_S"
_DEFAULT_S = 60.0


def choose_fresh_s(argument: float | None) -> float:
    """Return the time of a client, in seconds.

    Raises:
        ValueError: If it is not positive. The error names the argument or the variable.
        TypeError: If the argument is not a number.
    """
    if argument is not None:
        return check.seconds("prompt_fresh_s", argument)
    text = os.environ.get(VARIABLE)
    return parse_fresh_s(text) if text else _DEFAULT_S


def parse_fresh_s(text: str) -> float:
    """Return the value of the environment variable."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{VARIABLE} must be a number of seconds, not {text!r}") from None
    return check.seconds(VARIABLE, value)
