"""The id of a call, as the telephone platform has named it.

Below 40 lines, but a matter of its own: where the transports of Pipecat hold it.
"""

from collections.abc import Iterable
from typing import Any

# The attributes of Pipecat's serializers: Twilio and Exotel, Plivo, Telnyx.
_ATTRIBUTES = ("_call_sid", "_call_id", "_call_control_id", "call_sid", "call_id", "call_control_id")


def find_call_id(processors: Iterable[Any]) -> str | None:
    """Return the id of the call that a transport among the processors carries, or None if none has one."""
    for processor in processors:
        serializer = getattr(getattr(processor, "_params", None), "serializer", None)
        for attribute in _ATTRIBUTES:
            call_id = getattr(serializer, attribute, None)
            if isinstance(call_id, str) and call_id:
                return call_id
    return None
