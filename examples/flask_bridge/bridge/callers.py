"""Who calls, as the memory may know it: a hash of the number, and never the number itself."""

import hmac
import re

# With a country's code, as all four platforms give it; blanks, dashes and brackets are a person's.
_NUMBER_PATTERN = re.compile(r"\+[1-9]\d{6,14}")
_PUNCTUATION = re.compile(r"[\s().-]")
# What Twilio writes for those who hide theirs: the words ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN and UNAVAILABLE on a
# phone's keys. They look like numbers, and would make one caller of all who withhold one.
_WITHHELD_NUMBERS = frozenset(["+266696687", "+7378742833", "+2562533", "+8566696", "+86282452253"])


def make_caller_id(salt: bytes, number: str | None) -> str | None:
    """The caller's id, the same for each of his calls; None for who is not known by a number.

    The salt must be secret and stay: without it, all the world's numbers are tried within an hour.
    """
    normalized = _PUNCTUATION.sub("", number or "")
    if not _NUMBER_PATTERN.fullmatch(normalized) or normalized in _WITHHELD_NUMBERS:
        return None
    return "caller_" + hmac.digest(salt, normalized.encode(), "sha256").hex()
