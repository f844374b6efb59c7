"""Corrections: a turn that is delivered again with other words is an event of its own, and names what it corrects.

The runtime logs it, the cloud stores it, and both use the correction from then on. Programs that do not know the key
see one more turn.
"""

from collections.abc import Mapping
from typing import Any

# The key in a turn's payload of the id of the event that the turn corrects.
CORRECTS_KEY = "corrects"


def corrected_event_id(payload: Mapping[str, Any]) -> str | None:
    """Return the id of the event that a turn corrects; None if it corrects none."""
    event_id = payload.get(CORRECTS_KEY)
    return event_id if isinstance(event_id, str) and event_id else None
