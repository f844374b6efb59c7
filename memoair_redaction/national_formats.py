"""National formats of telephone numbers, by Google's numbering plans (the package ``phonenumbers``)."""

import logging
import re
from functools import cache
from types import ModuleType

log = logging.getLogger(__name__)

# The countries whose national numbers have no prefix 0, which would be enough to recognize them.
_REGIONS = (
    "US SE ES IT PL PT GR CZ SK MX BR IN CN RU CL CO PE HU RO BG IL NO DK SG HK LV LT EE LU IS CY MT CR PA UY VE TN"
).split()


@cache
def _load() -> ModuleType | None:
    """Return the package, imported on first use: its metadata is large."""
    try:
        import phonenumbers
    except ImportError:
        log.warning(
            "phonenumbers is not installed, so some national telephone numbers are not redacted; "
            "install memoair-voice[redaction]: action=redaction_without_phonenumbers"
        )
        return None
    return phonenumbers


def is_national_format(candidate: str) -> bool:
    """Return whether groups of digits are a valid number, grouped as it is written in its country."""
    return _is_valid(candidate, is_grouped=True)


def is_valid_anywhere(candidate: str) -> bool:
    """Return whether digits are a valid number of a country, in any grouping."""
    return _is_valid(candidate, is_grouped=False)


def _is_valid(candidate: str, *, is_grouped: bool) -> bool:
    candidate = re.sub(r",\s*", " ", candidate)
    library = _load()
    if library is None:
        return False
    for region in _REGIONS:
        try:
            number = library.parse(candidate, region)
        except library.NumberParseException:
            continue
        if not library.is_valid_number(number):
            continue
        if not is_grouped:
            return True
        found = library.PhoneNumberMatcher(candidate, region, library.Leniency.STRICT_GROUPING, max_tries=1)
        if any(match.raw_string == candidate.strip() for match in found):
            return True
    return False
