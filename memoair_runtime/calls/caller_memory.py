"""What one caller and his agents have said, over all sessions, ready to be searched."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from memoair_index import Document, Index, Query
from memoair_runtime.calls.profile import Profile
from memoair_runtime.storage.events import Event, EventType

CALLER, AGENT = "caller", "agent"


@attrs.frozen
class Turn:
    """The caller spoke, the agent answered. ``number`` counts the session's turns from 0."""

    event_id: str
    session_id: str
    number: int
    turn_id: str
    caller: str
    agent: str
    user_text: str
    assistant_text: str
    occurred_at: datetime
    metadata: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Both sides, a line each, with the speaker's name."""
        sides = ((self.caller, self.user_text), (self.agent, self.assistant_text))
        return "\n".join(f"{speaker}: {text}" for speaker, text in sides if text)


@attrs.frozen
class FoundTurn:
    """A turn that a search found. ``side`` is the one of the two that matched best."""

    turn: Turn
    score: float
    side: str


class CallerMemory:
    """Turns and profile of one caller, fed with events in any order of sessions. Safe to use from any thread."""

    def __init__(self, profile: Profile) -> None:
        self._lock = threading.Lock()
        self._index = Index()
        self._sessions: defaultdict[str, list[Turn]] = defaultdict(list)
        self._turns: dict[str, Turn] = {}  # by event id
        self._names: dict[str, tuple[str, str]] = {}  # of caller and agent, by session
        self._profile = profile

    @property
    def profile(self) -> Profile:
        """Who the caller is, as told last."""
        return self._profile

    def __len__(self) -> int:
        """Count the turns."""
        return len(self._turns)

    def observe(self, event: Event) -> None:
        """Take in an event; one that is known already changes nothing."""
        if event.type is EventType.SESSION_START:
            self._meet(event)
        elif event.type is EventType.TURN:
            self._hear(event)

    def turns(self, session_id: str) -> list[Turn]:
        """A session's turns, oldest first."""
        with self._lock:
            return list(self._sessions.get(session_id, ()))

    def neighbours(self, turn: Turn, distance: int) -> list[Turn]:
        """The turns that stand ``distance`` turns after and before a turn of the same session."""
        with self._lock:
            session = self._sessions[turn.session_id]
            return [session[i] for i in (turn.number + distance, turn.number - distance) if 0 <= i < len(session)]

    def search(self, query: Query, limit: int) -> list[FoundTurn]:
        """The best turns for a query, best first. A turn is as good as the better of its two sides."""
        found: dict[str, FoundTurn] = {}
        # Both sides of a turn may match, so twice the limit holds enough turns.
        for hit in self._index.search(query, 2 * limit):
            event_id, _, side = hit.document.id.partition(":")
            if event_id not in found and len(found) < limit:
                found[event_id] = FoundTurn(self._turns[event_id], hit.score, side)
        return list(found.values())

    def _meet(self, event: Event) -> None:
        user = event.payload.get("user") or {}
        metadata = event.payload.get("metadata") or {}
        with self._lock:
            self._names[event.session_id] = (str(user.get("name") or ""), str(metadata.get("assistantName") or ""))
            self._profile = self._profile.told(user, event.occurred_at)

    def _hear(self, event: Event) -> None:
        payload = event.payload
        metadata = payload.get("metadata") or {}
        with self._lock:
            if event.event_id in self._turns:
                return
            session = self._sessions[event.session_id]
            caller, agent = self._names.get(event.session_id, ("", ""))
            caller = caller or self._profile.name or "Caller"
            agent = str(metadata.get("assistantName") or agent or "Agent")
            if caller.casefold() == agent.casefold():  # who is called as the agent must not speak as the agent
                caller, agent = f"{caller} (caller)", f"{agent} (agent)"
            turn = Turn(
                event_id=event.event_id,
                session_id=event.session_id,
                number=len(session),
                turn_id=str(payload.get("turnId")),
                caller=caller,
                agent=agent,
                user_text=str(payload.get("userText") or ""),
                assistant_text=str(payload.get("assistantText") or ""),
                occurred_at=event.occurred_at,
                metadata=metadata,
            )
            session.append(turn)
            self._turns[turn.event_id] = turn
        self._index.add(_documents(turn))


def _documents(turn: Turn) -> list[Document]:
    sides = ((CALLER, turn.caller, turn.user_text), (AGENT, turn.agent, turn.assistant_text))
    return [
        Document(f"{turn.event_id}:{side}", text, turn.session_id, speaker, turn.occurred_at.timestamp(), turn.metadata)
        for side, speaker, text in sides
        if text
    ]
