"""What an outcome of a call may be called. The cloud checks it; who imports a table checks it before the upload."""

import re

# Beyond that, a score is a mistake, and the squares of some would be no numbers.
MAX_SCORE = 1e12
OUTCOME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_OUTCOME = re.compile(OUTCOME_PATTERN)


def is_outcome_name(value: str) -> bool:
    """Return whether a text is the name of an outcome: lower case, digits, dots, dashes, at most 64 characters."""
    return _OUTCOME.fullmatch(value) is not None
