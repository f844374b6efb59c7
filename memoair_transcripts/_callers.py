"""Who is calling: the caller's id, from what a platform knows of a call.

The same person has the same id over telephone, SIP, SMS and WhatsApp, if a platform gives their number in any spelling.
What is sent during a call (a webhook, a request to a model) identifies them like what is exported after it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

# What platforms, and templates without a value, send for callers who withhold their number. Taken as ids, they would
# turn them all into one caller.
_WITHHELD = frozenset(
    ["no caller id", "caller id unavailable", "not available", "n/a"]
    + [
        f"{word} {noun}"
        for word in "private blocked restricted unknown withheld".split()
        for noun in "number caller".split()
    ]
    + "anonymous blocked private restricted unavailable unknown withheld null none undefined nan".split()
)
# The words ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN and UNAVAILABLE on the keys of a phone (Twilio).
_WITHHELD_NUMBERS = frozenset("+266696687 +7378742833 +2562533 +8566696 +86282452253".split())
_SCHEME = re.compile(r"(?P<scheme>sips?|tel|whatsapp|sms|client):(?://)?", re.IGNORECASE)
_IN_ANGLES = re.compile(r"[^<>]*<([^<>]+)>[^<>]*")  # "Ana" <sip:ana@example.com>;tag=1
_SIP_HOST = re.compile(r"([^:;?]*)(?::\d+)?(?:[;?].*)?")
_PUNCTUATION = re.compile(r"[\s()./\u2010-\u2013-]")
_INTERNATIONAL = re.compile(r"(?:\+|00)([1-9]\d{6,14})", re.ASCII)
_DIGITS = re.compile(r"[1-9]\d{6,14}", re.ASCII)
_UNFILLED = re.compile(r"\{\{.*\}\}")  # a variable of a platform that has no value


@attrs.frozen
class CallerFields:
    """Where a platform says who is calling, as paths: ``metadata.userId``.

    Attributes:
        ids: The application's own id for the caller, which it has given the call.
        addresses: The caller's number or address.
        other_ids: Other ids, which are used only without a number.
        international: Those of the addresses that are numbers with a country code and without a plus.
        places: Where the call may be within what the platform sends, as prefixes of the paths.
    """

    ids: Sequence[str]
    addresses: Sequence[str]
    other_ids: Sequence[str] = ()
    international: Sequence[str] = ()
    places: Sequence[str] = ("",)


def _own_ids(*places: str) -> tuple[str, ...]:
    return tuple(f"{place}{name}" for place in places for name in ("userId", "user_id"))


_INITIATION = "conversation_initiation_client_data."
_CALLERS: Mapping[str, CallerFields] = MappingProxyType(
    {
        "vapi": CallerFields(
            ids=_own_ids(
                "metadata.",
                "assistantOverrides.metadata.",
                "assistantOverrides.variableValues.",
                "assistant.metadata.",
                "",  # requests to a custom model may have the fields of the metadata themselves
            ),
            addresses=("customer.number",),
            other_ids=("customer.externalId", "customer.sipUri"),
            places=("", "call.", "message.", "message.call."),
        ),
        "retell": CallerFields(
            ids=_own_ids("metadata.", "retell_llm_dynamic_variables."), addresses=("from_number",), places=("", "call.")
        ),
        "elevenlabs": CallerFields(
            ids=_own_ids(f"{_INITIATION}dynamic_variables.", _INITIATION, "", "elevenlabs_extra_body."),
            # The channels of a conversation, each with the caller's number; then requests of tools and to a model.
            addresses=(
                "metadata.phone_call.external_number",
                "metadata.sms.sms_user_phone_number",
                "metadata.whatsapp.whatsapp_user_id",
                f"{_INITIATION}dynamic_variables.system__caller_id",
                "caller_id",
                "elevenlabs_extra_body.caller_id",
                "elevenlabs_extra_body.system__caller_id",
            ),
            international=("metadata.whatsapp.whatsapp_user_id",),
            places=("", "data."),
        ),
        "twilio": CallerFields(ids=(), addresses=("From", "Caller")),
    }
)
# In a call that the application made, the caller is the person it called.
_CALLED: Mapping[str, tuple[str, Sequence[str]]] = MappingProxyType(
    {"retell": ("direction", ("to_number",)), "twilio": ("Direction", ("To", "Called"))}
)


def caller_address(value: object, *, is_international: bool = False) -> str | None:
    """Return a caller's number or address in one spelling, for use as their id.

    Args:
        value: What the platform gives: ``+44 20 7946 0123``, ``tel:``, ``sip:``, ``whatsapp:`` and so on.
        is_international: Whether a number without a plus begins with its country code, as in WhatsApp.

    Returns:
        A number as ``+`` and digits; another address as it is, of a SIP address the user and the host; None if it is
        missing or withheld. A number without a plus, which may be national, stays as it is.
    """
    if not isinstance(value, str) or not value.strip():
        return None
    text = value.strip()
    in_angles = _IN_ANGLES.fullmatch(text)
    text = in_angles[1].strip() if in_angles is not None else text
    scheme = _SCHEME.match(text)
    name = scheme["scheme"].lower() if scheme is not None else ""
    rest = text[scheme.end() :] if scheme is not None else text
    user = re.split(r"[@;]", rest, maxsplit=1)[0]
    number = _PUNCTUATION.sub("", user)
    if _is_withheld(user) or number in _WITHHELD_NUMBERS:
        return None
    international = _INTERNATIONAL.fullmatch(number)
    if international is not None:
        return f"+{international[1]}"
    if (is_international or name == "whatsapp") and _DIGITS.fullmatch(number):
        return f"+{number}"
    if name in ("sip", "sips") and "@" in rest:
        host = _SIP_HOST.fullmatch(rest.partition("@")[2])
        return f"sip:{user}@{host[1].lower()}" if host is not None else text
    return text


def find_caller(platform: str, payload: Mapping[str, Any], *, default: str | None = None) -> str | None:
    """Return the id of the caller of a call, None if nothing identifies them.

    An own id that the application has given the call comes first (``metadata.userId``), then ``default``, the caller's
    number or address, and other ids of the platform.

    Args:
        platform: ``vapi``, ``retell``, ``elevenlabs`` or ``twilio``.
        payload: What the platform sends: a call, a webhook, a request of a tool or to a model, or the fields of a form.
            Fields of any type are accepted.
        default: The id of a caller that the call does not identify by an own id.

    Raises:
        ValueError: The platform is unknown.
    """
    fields = _CALLERS.get(platform)
    if fields is None:
        raise ValueError(f"unknown platform {platform!r}; the platforms are {', '.join(_CALLERS)}")
    own_id = next(_find_ids(payload, fields, fields.ids), None)
    address = next(_find_addresses(platform, payload, fields), None)
    if own_id is not None and address is not None and own_id.lstrip("+") == address.lstrip("+"):
        own_id = address  # the number again: WhatsApp writes it without the plus
    return own_id or default or address or next(_find_ids(payload, fields, fields.other_ids), None)


def _find_addresses(platform: str, payload: Mapping[str, Any], fields: CallerFields) -> Iterator[str]:
    direction, called = _CALLED.get(platform, ("", ()))
    for place in fields.places:
        is_outbound = str(_get(payload, place + direction)).startswith("outbound") if direction else False
        for path in called if is_outbound else fields.addresses:
            address = caller_address(_get(payload, place + path), is_international=path in fields.international)
            if address is not None:
                yield address


def _find_ids(payload: Mapping[str, Any], fields: CallerFields, paths: Sequence[str]) -> Iterator[str]:
    for value in (_get(payload, place + path) for place in fields.places for path in paths):
        if isinstance(value, int) and not isinstance(value, bool):
            yield str(value)
        elif isinstance(value, str) and value.strip() and not _is_withheld(value):
            is_address = value.strip().startswith("+") or _SCHEME.match(value.strip())
            found = caller_address(value) if is_address else value
            if found is not None:
                yield found


def _is_withheld(text: str) -> bool:
    return " ".join(text.casefold().replace("_", " ").split()) in _WITHHELD or bool(_UNFILLED.search(text))


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
