"""Turns that were delivered again with other words: only the correction counts, in the place of the first version."""

from collections.abc import Sequence

from memoair_cloud.database.models import CallEvent
from memoair_protocol.corrections import corrected_event_id


def drop_corrected(events: Sequence[CallEvent]) -> list[CallEvent]:
    """Return turns without those that another one corrects; a correction takes the place of the first version.

    Args:
        events: The events of turns, in the order in which they were spoken.
    """
    versions: dict[str, CallEvent] = {}  # the latest version so far, by the id of the event that it may correct
    places: dict[str, int] = {}
    for place, event in enumerate(events):
        corrected_id = corrected_event_id(event.payload)
        places[event.id] = place if corrected_id is None else places.get(corrected_id, place)
        versions[event.id] = event
    for event in events:
        corrected_id = corrected_event_id(event.payload)
        if corrected_id not in (None, event.id):
            versions.pop(corrected_id, None)
    return sorted(versions.values(), key=lambda event: places[event.id])
