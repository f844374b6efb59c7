"""The id of a caller: a hash of the phone number, never the number itself."""

import hmac
import re

# With a country code, as all four platforms send it. Spaces, dashes and brackets come from people.
_NUMBER_PATTERN = re.compile(r"\+[1-9]\d{6,14}")
_PUNCTUATION = re.compile(r"[\s().-]")
# What Twilio sends for withheld numbers: the words ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN and UNAVAILABLE on the keys
# of a phone. They look like numbers, and would turn all callers who withhold theirs into one.
_WITHHELD_NUMBERS = frozenset(["+266696687", "+7378742833", "+2562533", "+8566696", "+86282452253"])


def make_caller_id(salt: bytes, number: str | None) -> str | None:
    """Return the caller's id, the same for all of their calls, or None if the number is unknown or withheld.

    The salt must be secret and must never change. Without a salt, all phone numbers of the world can be tried within an
    hour.
    """
    normalized = _PUNCTUATION.sub("", number or "")
    if not _NUMBER_PATTERN.fullmatch(normalized) or normalized in _WITHHELD_NUMBERS:
        return None
    return "caller_" + hmac.digest(salt, normalized.encode(), "sha256").hex()
