"""Proof that a request comes from whom it says: HMACs over the body as it came, compared in constant time, not too old.

Each function tells whether a request is sound; ``now`` is in seconds since 1970.
"""

import hmac

RETELL_WINDOW_S = 5 * 60.0
VAPI_WINDOW_S = 5 * 60.0
ELEVENLABS_WINDOW_S = 30 * 60.0
_MIN_MILLISECONDS = 100_000_000_000  # as seconds that would be the year 5138


def is_signed_by_retell(body: bytes, header: str, api_key: bytes, now: float) -> bool:
    """``X-Retell-Signature: v=MILLISECONDS,d=HEX`` over the body and, behind it, the time."""
    fields = _parse_fields(header)
    timestamp = fields.get("v", [""])[0]
    return _is_recent(timestamp, now, RETELL_WINDOW_S) and _matches_signature(
        api_key, body + timestamp.encode(), fields.get("d", [])
    )


def is_signed_by_elevenlabs(body: bytes, header: str, secret: bytes, now: float) -> bool:
    """``ElevenLabs-Signature: t=SECONDS,v0=HEX`` over the time, a dot and the body; several ``v0`` as keys change."""
    fields = _parse_fields(header)
    timestamp = fields.get("t", [""])[0]
    signed = timestamp.encode() + b"." + body
    return _is_recent(timestamp, now, ELEVENLABS_WINDOW_S) and _matches_signature(secret, signed, fields.get("v0", []))


def is_signed_by_vapi(body: bytes, signature: str, timestamp: str, secret: bytes, now: float) -> bool:
    """A credential of Vapi's kind HMAC: SHA-256 in hex over ``{timestamp}.{body}``.

    A signature over the body alone would be good for ever, so it is not taken.
    """
    signed = timestamp.encode() + b"." + body
    return _is_recent(timestamp, now, VAPI_WINDOW_S) and _matches_signature(
        secret, signed, [signature.removeprefix("sha256=")]
    )


def matches_secret(candidate: str, secret: bytes) -> bool:
    """A shared secret that comes as it is, in a header. An empty one is no secret."""
    return bool(secret) and hmac.compare_digest(candidate.encode(), secret)


def _parse_fields(header: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for part in header.split(",")[:8]:
        name, _, value = part.strip().partition("=")
        fields.setdefault(name, []).append(value)
    return fields


def _is_recent(timestamp: str, now: float, window_s: float) -> bool:
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 16):
        return False
    seconds = int(timestamp)
    return abs(now - (seconds / 1e3 if seconds >= _MIN_MILLISECONDS else seconds)) <= window_s


def _matches_signature(secret: bytes, signed: bytes, signatures: list[str]) -> bool:
    if not secret:
        return False
    expected = hmac.digest(secret, signed, "sha256").hex().encode()
    # In bytes: a str that is not ASCII would raise.
    return any(hmac.compare_digest(expected, given.encode()) for given in signatures)
