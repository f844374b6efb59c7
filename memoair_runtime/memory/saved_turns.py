"""Turns that are saved: what became of each, which version a delivery repeats, and what a correction holds."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from memoair_protocol.corrections import CORRECTS_KEY
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.turn_words import VersionKey, fill_unsaid


@attrs.frozen
class SpokenTurn:
    """A turn to save.

    Attributes:
        payload: The payload of the turn event.
        occurred_at: When it was spoken. None means now or, for a correction, when the turn was.
    """

    payload: Mapping[str, Any] = attrs.field(repr=False)
    occurred_at: datetime | None = None


@attrs.frozen
class SavedTurn:
    """What became of a turn.

    Attributes:
        event_id: The id of the event with these words. None if nothing is stored.
        is_erased: Whether it is from before an erasure of its user, and therefore not stored.
    """

    event_id: str | None = None
    is_erased: bool = False


@attrs.frozen
class TurnVersion:
    """One version of a turn in the log."""

    event_id: str
    key: VersionKey


def find_version(versions: Sequence[TurnVersion], key: VersionKey) -> TurnVersion | None:
    """Return the version with exactly these words, or else the first one that has all of them; None if none has."""
    matches = [version for version in versions if version.key == key]
    return next(iter(matches or (version for version in versions if key.is_covered_by(version.key))), None)


def as_correction(
    payload: Mapping[str, Any], occurred_at: datetime | None, corrected_id: str, corrected: Event | None
) -> tuple[Mapping[str, Any], datetime | None]:
    """Return payload and time of the event that corrects another one."""
    if corrected is not None:
        payload, occurred_at = fill_unsaid(payload, corrected.payload), occurred_at or corrected.occurred_at
    return {**payload, CORRECTS_KEY: corrected_id}, occurred_at
