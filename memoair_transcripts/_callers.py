"""Who is calling: the caller's id, from what a platform knows of a call.

The same person has the same id over telephone, SIP, SMS and WhatsApp, if a platform gives their number in any spelling.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# What platforms send for callers who withhold their number. Taken as ids, they would turn them all into one caller.
# The numbers are the words ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN and UNAVAILABLE on the keys of a phone (Twilio).
_WITHHELD = frozenset(
    "anonymous blocked private restricted unavailable unknown withheld"
    " +266696687 +7378742833 +2562533 +8566696 +86282452253".split()
)
_SCHEME = re.compile(r"(?P<scheme>sips?|tel|whatsapp|sms|client):(?://)?", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[\s()./\u2010-\u2013-]")
_INTERNATIONAL = re.compile(r"(?:\+|00)([1-9]\d{6,14})", re.ASCII)
_DIGITS = re.compile(r"[1-9]\d{6,14}", re.ASCII)


def caller_address(value: object, *, is_international: bool = False) -> str | None:
    """Return a caller's number or address in one spelling, for use as their id.

    Args:
        value: What the platform gives: ``+44 20 7946 0123``, ``tel:``, ``sip:``, ``whatsapp:`` and so on.
        is_international: Whether a number without a plus begins with its country code, as in WhatsApp.

    Returns:
        A number as ``+`` and digits; another address as it is; None if it is missing or withheld.
    """
    if not isinstance(value, str) or not value.strip():
        return None
    text = value.strip()
    scheme = _SCHEME.match(text)
    is_whatsapp = scheme is not None and scheme["scheme"].lower() == "whatsapp"
    user = re.split(r"[@;]", text[scheme.end() :] if scheme is not None else text, maxsplit=1)[0]
    number = _PUNCTUATION.sub("", user)
    if user.strip().casefold() in _WITHHELD or number in _WITHHELD:
        return None
    international = _INTERNATIONAL.fullmatch(number)
    if international is not None:
        return f"+{international[1]}"
    if (is_international or is_whatsapp) and _DIGITS.fullmatch(number):
        return f"+{number}"
    return text


def find_caller(
    call: Mapping[str, Any],
    *,
    ids: Sequence[str],
    default: str | None,
    addresses: Sequence[str],
    other_ids: Sequence[str] = (),
    international: Sequence[str] = (),
) -> str | None:
    """Return the id of a call's caller, None if nothing identifies them.

    Args:
        call: The call as the platform describes it.
        ids: Where the application's own id for the caller may be, as paths: ``metadata.userId``.
        default: The id of a caller that the call does not identify so.
        addresses: Where the caller's number or address may be.
        other_ids: Where other ids may be that are used only without a number.
        international: Those of the addresses that are numbers with a country code and without a plus.
    """
    found = (caller_address(_get(call, path), is_international=path in international) for path in addresses)
    address = next((address for address in found if address is not None), None)
    own_id = _first_id(call, ids)
    if own_id is not None and address is not None and own_id.lstrip("+") == address.lstrip("+"):
        own_id = address  # the number again: WhatsApp writes it without the plus
    return own_id or default or address or _first_id(call, other_ids)


def _first_id(call: Mapping[str, Any], paths: Sequence[str]) -> str | None:
    values = (_get(call, path) for path in paths)
    return next((str(value) for value in values if _is_id(value)), None)


def _is_id(value: object) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or (isinstance(value, int) and not isinstance(value, bool))


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
