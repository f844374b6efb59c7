"""A turn that could not be saved at once, in memory and as a record of the spool."""

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import attrs

from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync._turns.user import User


class SpoolEntry(NamedTuple):
    """Where a turn is in the spool: in which segment, and its number there."""

    segment: object
    number: int


@attrs.define
class UnsavedTurn:
    """A turn to save, and its session. The ``repr`` does not show what was said.

    Attributes:
        user: The user.
        turn: The turn.
        session_id: The session, None for the one that the client's handle of the user has when the turn is saved.
        is_named: Whether the application has named the session.
        failures: How many attempts to save it have failed.
        size_bytes: The size of its record.
        entry: Where it is in the spool; None if it is not there.
        is_adopted: Whether it was promised by another client, which has ended.
    """

    user: User = attrs.field(repr=False)
    turn: Turn = attrs.field(repr=False)
    session_id: str | None
    is_named: bool = True
    failures: int = 0
    size_bytes: int = 0
    entry: SpoolEntry | None = None
    is_adopted: bool = False

    def encode(self) -> bytes:
        """Return the record as JSON, without its number. Raises TypeError or ValueError if JSON cannot hold it."""
        record = {
            "user": self.user.fields,
            "sessionId": self.session_id,
            "named": self.is_named,
            "turn": attrs.asdict(self.turn, recurse=False),
        }
        try:
            # A lone surrogate, which a broken transcriber may produce, must not lose the turn.
            return json.dumps(record, ensure_ascii=False, allow_nan=False).encode(errors="replace")
        except RecursionError:
            raise ValueError("an argument is nested too deeply") from None

    @classmethod
    def decode(cls, record: Mapping[str, Any]) -> "UnsavedTurn":
        """Return the turn of a record. Raises ValueError, TypeError or KeyError if the record is invalid."""
        session_id = record["sessionId"]
        if not (session_id is None or (isinstance(session_id, str) and session_id)):
            raise TypeError("the session of a record is no text")
        return cls(
            User.parse(record["user"], None),
            Turn.parse(record["turn"]),
            session_id,
            is_named=record["named"] is True,
            is_adopted=True,
        )


def name_sessions(turns: Iterable[UnsavedTurn], owner_id: str) -> None:
    """Name the sessions of turns that belong to "the" call of a client that has ended.

    They belong to the call of the turn before them that the client knew the session of. The handle of this client has
    another call.
    """
    unnamed: dict[str, str] = {}  # by user
    for turn in turns:
        if turn.session_id is None:
            turn.session_id = unnamed.setdefault(turn.user.id, _recovered_session_id(owner_id, turn.user.id))
        elif not turn.is_named:
            unnamed[turn.user.id] = turn.session_id


def _recovered_session_id(owner_id: str, user_id: str) -> str:
    """Return the same session for each client that takes the turns over."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{owner_id} {user_id}").hex
