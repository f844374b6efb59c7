"""What a caller has said, in the order in which it was said, with corrected turns as they are now."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from memoair_protocol.corrections import CORRECTS_KEY, corrected_event_id
from memoair_protocol.timestamps import parse_timestamp


@attrs.frozen
class PastEvent:
    """An event of a call, at its place.

    Attributes:
        content: The event; of a turn that was corrected, its last correction at the time of its first version.
        first_id: The id of its first version.
    """

    content: Mapping[str, Any]
    first_id: str


def order_events(events: Iterable[Mapping[str, Any]]) -> list[PastEvent]:
    """Return the events of a user's calls in the order in which they happened.

    In a call, the sequence numbers say what came first, whatever the clocks say. A correction is not an event of its
    own: it takes the place of the turn that it corrects.

    Args:
        events: The events, as a projection of the cloud has them, in any order.
    """
    by_call: dict[str, list[PastEvent]] = {}
    for event in _apply_corrections(list(events)):
        by_call.setdefault(event.content["sessionId"], []).append(event)
    placed: list[tuple[datetime, str, int, str, PastEvent]] = []
    for session_id, of_call in by_call.items():
        latest: datetime | None = None
        for event in sorted(of_call, key=lambda each: _place_in_call(each.content)):
            at = parse_timestamp(event.content["occurredAt"])
            latest = at if latest is None else max(latest, at)
            placed.append((latest, session_id, *_place_in_call(event.content), event))
    return [place[-1] for place in sorted(placed, key=lambda place: place[:-1])]


def _place_in_call(content: Mapping[str, Any]) -> tuple[int, str]:
    return content["seq"], content["eventId"]


def _apply_corrections(events: Sequence[Mapping[str, Any]]) -> list[PastEvent]:
    by_id = {event["eventId"]: event for event in events}
    latest: dict[str, Mapping[str, Any]] = {}  # by the id of the first version
    for event in sorted(events, key=_place_in_call):
        latest[_find_first(event, by_id)] = event
    found = []
    for event in events:
        if corrected_event_id(event["payload"]) in by_id:
            continue
        first_id, content = event["eventId"], event
        if (correction := latest[first_id]) is not event:
            payload = {name: value for name, value in correction["payload"].items() if name != CORRECTS_KEY}
            content = {**event, "eventId": correction["eventId"], "payload": payload}
        found.append(PastEvent(content, first_id))
    return found


def _find_first(event: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the id of the turn that an event corrects, also by way of other corrections; else its own."""
    seen = {event["eventId"]}
    while (corrected := corrected_event_id(event["payload"])) in by_id and corrected not in seen:
        seen.add(str(corrected))
        event = by_id[str(corrected)]
    return str(event["eventId"])
