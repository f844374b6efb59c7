"""The id of a caller: a hash of their number, address or own id, never the thing itself."""

import hmac
from collections.abc import Mapping
from typing import Any

from memoair_transcripts import caller_address, find_caller


def make_caller_id(salt: bytes, caller: str | None) -> str | None:
    """Return the id of a caller, the same for all of their calls, or None if they are unknown or withhold their number.

    The salt must be secret and must never change. Without a salt, all phone numbers of the world can be tried within an
    hour.

    Args:
        salt: The salt.
        caller: Their number in any spelling, or another address or id.
    """
    address = caller_address(caller)
    return None if address is None else "caller_" + hmac.digest(salt, address.encode(), "sha256").hex()


def identify_caller(salt: bytes, platform: str, payload: Mapping[str, Any]) -> str | None:
    """Return the id of the caller of a call, from what a platform sends; None if nothing identifies them.

    The importer of transcripts uses the same rules.
    """
    return make_caller_id(salt, find_caller(platform, payload))
