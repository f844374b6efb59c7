"""What one caller and his agents have said, over all sessions, ready to be searched."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from memoair_index import Document, Hit, Index, Query
from memoair_runtime.calls.names import AGENT, CALLER, Names
from memoair_runtime.calls.profile import Profile
from memoair_runtime.calls.turn import Turn, event_of, first_ids, to_documents, to_turn, to_turns
from memoair_runtime.filters import Predicate
from memoair_runtime.storage.events import Event, EventType

# What was said in a call just before: enough to read the next question in its light.
_RECENT_TURNS = 24
_KEPT_TURNS = 512


class CallerMemory:
    """Turns and profile of one caller, fed with events in any order of sessions. Safe to use from any thread."""

    def __init__(self, profile: Profile) -> None:
        self._lock = threading.Lock()
        self._profile = profile
        self._called: dict[str, tuple[str, str]] = {}  # caller and agent by their names, by session
        self._recent: dict[str, deque[Turn]] = {}  # the last turns of each session that was asked for
        self._whole: dict[
            str, Turn
        ] = {}  # turns that were put together, by event id: a call asks for few again and again
        self._use(Index())

    @property
    def profile(self) -> Profile:
        """Who the caller is, as told last."""
        return self._profile

    @property
    def unmerged(self) -> int:
        """How many documents no index file holds yet."""
        return self._index.unmerged

    def __len__(self) -> int:
        """Count the passages that can be found."""
        return len(self._index)

    def observe(self, event: Event) -> None:
        """Take in an event; one that is known already changes nothing."""
        if event.type is EventType.SESSION_START:
            self._meet(event)
        elif event.type is EventType.TURN:
            self._hear(event)

    def turns(self, session_id: str) -> list[Turn]:
        """A session's turns, oldest first."""
        return to_turns(self._index.group(session_id))

    def group(self, session_id: str) -> list[Document]:
        """All passages of a session, in order."""
        return self._index.group(session_id)

    def count(self, session_id: str) -> int:
        """How many turns a session has."""
        last = self._index.group(session_id, last=1)
        return to_turn(last).number + 1 if last else 0

    def recent(self, session_id: str) -> list[Turn]:
        """A session's last turns, oldest first."""
        with self._lock:
            return list(self._recent_of(session_id))

    def talk(self, session_id: str) -> tuple[str, ...]:
        """What was said last in a session, a text for each side of each turn, oldest first."""
        return tuple(text for turn in self.recent(session_id) for text in (turn.user_text, turn.assistant_text) if text)

    def search(self, query: Query, limit: int, keeps: Predicate | None = None) -> list[Hit]:
        """The best passages for a query, best first; ``keeps`` judges the metadata of their turns.

        Whom the question asks about, and by which names, is found out here.
        """
        with self._lock:
            meant = self._names.meant(query.text)
            names = self._names.of(CALLER) | self._names.of(AGENT)
        query = attrs.evolve(query, speaker=meant.side, by_name=meant.by_name, names=names)
        return self._index.search(query, limit, None if keeps is None else lambda each: keeps(_metadata(each)))

    def turn_of(self, document: Document) -> Turn:
        """The whole turn that a passage is of."""
        event_id = event_of(document)
        turn = self._whole.get(event_id)
        if turn is None:
            if len(self._whole) >= _KEPT_TURNS:
                self._whole.clear()
            found = self._index.stretch(document.id, lambda each: event_of(each) == event_id)
            turn = self._whole[event_id] = to_turn(found or [document])
        return turn

    def open(self, path: Path) -> Mapping[str, Any]:
        """Go on with what an index file holds instead of what is known here, and return what was noted in it.

        Raises `memoair_index.ContainerError` or OSError, and then changes nothing.
        """
        index = Index.open(path)
        with self._lock:
            self._use(index)
            self._names.from_note(index.note["names"])
        return index.note

    def verify(self) -> None:
        """Compare the index file with its checksums; raises `memoair_index.ContainerError` where it differs."""
        self._index.verify()

    def forget(self) -> None:
        """Begin again with nothing but the profile: all of it will be told once more."""
        with self._lock:
            self._use(Index())

    def merge(self, path: Path, note: Callable[[], Mapping[str, Any]]) -> None:
        """Write all turns to an index file and go on with it; ``note`` is noted beside what is needed here.

        Raises OSError where the disk refuses.
        """
        with self._lock:  # not within the note: whoever holds this lock may be waiting for the index
            names = self._names.to_note()
        self._index.merge(path, lambda: {**note(), "names": names})

    def _use(self, index: Index) -> None:
        self._index = index
        self._names = Names(index.frequency)
        self._names.tell(CALLER, self._profile.name)
        self._recent.clear()
        self._whole.clear()

    def _recent_of(self, session_id: str) -> "deque[Turn]":
        recent = self._recent.get(session_id)
        if recent is None:
            recent = self._recent[session_id] = deque(self.turns(session_id)[-_RECENT_TURNS:], maxlen=_RECENT_TURNS)
        return recent

    def _meet(self, event: Event) -> None:
        user = event.payload.get("user") or {}
        metadata = event.payload.get("metadata") or {}
        caller, agent = str(user.get("name") or ""), str(metadata.get("assistantName") or "")
        with self._lock:
            self._called[event.session_id] = (caller, agent)
            self._names.tell(CALLER, caller)
            self._names.tell(AGENT, agent)
            self._profile = self._profile.told(user, event.occurred_at)

    def _hear(self, event: Event) -> None:
        if any(each in self._index for each in first_ids(event.event_id)):
            return
        payload = event.payload
        metadata = payload.get("metadata") or {}
        with self._lock:
            caller, agent = self._called.get(event.session_id, ("", ""))
            told_agent = str(metadata.get("assistantName") or "")
            caller = caller or self._profile.name or "Caller"
            agent = told_agent or agent or "Agent"
            if caller.casefold() == agent.casefold():  # who is called as the agent must not speak as the agent
                caller, agent = f"{caller} (caller)", f"{agent} (agent)"
            turn = Turn(
                event_id=event.event_id,
                session_id=event.session_id,
                number=self.count(event.session_id),
                turn_id=str(payload.get("turnId")),
                caller=caller,
                agent=agent,
                user_text=str(payload.get("userText") or ""),
                assistant_text=str(payload.get("assistantText") or ""),
                occurred_at=event.occurred_at,
                metadata=metadata,
            )
            self._index.add(to_documents(turn))
            if event.session_id in self._recent:  # else it is read when somebody asks
                self._recent[event.session_id].append(turn)
            self._names.tell(AGENT, told_agent)
            self._names.hear(CALLER, turn.user_text)
            self._names.hear(AGENT, turn.assistant_text)


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = document.metadata["metadata"]
    return metadata
