"""What a caller has said, in the order in which it was said, with corrected turns as they are now."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from memoair_protocol.corrections import CORRECTS_KEY, corrected_event_id
from memoair_protocol.timestamps import parse_timestamp


def order_events(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events of a user's calls in the order in which they happened.

    In a call, the sequence numbers say what came first, whatever the clocks say. A correction is not an event of its
    own: the turn that it corrects has its words, at its own place.

    Args:
        events: The events, as a projection of the cloud has them, in any order.
    """
    by_call: dict[str, list[Mapping[str, Any]]] = {}
    for event in _apply_corrections(list(events)):
        by_call.setdefault(event["sessionId"], []).append(event)
    placed: list[tuple[datetime, str, int, str, Mapping[str, Any]]] = []
    for session_id, of_call in by_call.items():
        latest: datetime | None = None
        for event in sorted(of_call, key=lambda each: (each["seq"], each["eventId"])):
            at = parse_timestamp(event["occurredAt"])
            latest = at if latest is None else max(latest, at)
            placed.append((latest, session_id, event["seq"], event["eventId"], event))
    return [place[-1] for place in sorted(placed, key=lambda place: place[:-1])]


def _apply_corrections(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events without corrections, each corrected turn with the words of its last correction."""
    by_id = {event["eventId"]: event for event in events}
    latest: dict[str, Mapping[str, Any]] = {}
    for event in sorted(events, key=lambda each: (each["seq"], each["eventId"])):
        first = _find_first(event, by_id)
        if first != event["eventId"]:
            latest[first] = event
    found = []
    for event in events:
        if corrected_event_id(event["payload"]) in by_id:
            continue
        correction = latest.get(event["eventId"])
        if correction is not None:
            payload = {name: value for name, value in correction["payload"].items() if name != CORRECTS_KEY}
            event = {**event, "payload": payload}
        found.append(event)
    return found


def _find_first(event: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the id of the turn that an event corrects, also by way of other corrections; else its own."""
    seen = {event["eventId"]}
    while (corrected := corrected_event_id(event["payload"])) in by_id and corrected not in seen:
        seen.add(str(corrected))
        event = by_id[str(corrected)]
    return str(event["eventId"])
