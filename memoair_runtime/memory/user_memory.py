"""What one caller and his agents have said, over all sessions, ready to be searched."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_index import Document, Hit, Index, Query
from memoair_runtime.filters import Predicate
from memoair_runtime.memory.facts import document_id, is_fact, to_document
from memoair_runtime.memory.interruption import as_heard
from memoair_runtime.memory.profile import CloudProfile, MergedProfile, UserProfile, from_snapshot, snapshot
from memoair_runtime.memory.speaker_names import AGENT, CALLER, SpeakerNames, SpeakerNamesRecord
from memoair_runtime.memory.turn import StoredTurn, event_of, first_ids, to_documents, to_turn, to_turns
from memoair_runtime.storage.events import Event, EventType
from memoair_runtime.storage.replica_file import ReplicaFact

# What was said in a call just before: enough to read the next question in its light.
_RECENT_TURNS = 24
_RECENT_DOCUMENTS = 4 * _RECENT_TURNS
_KEPT_TURNS = 512
# Turns that wait to be indexed: of a batch that is loaded, a search that comes in between should not find too many.
_MOST_WAITING = 64


class UserMemory:
    """Turns, facts and profile of one caller, fed with events in any order of sessions. Safe to use from any thread.

    A turn that was observed is indexed when somebody asks, or before: who saves it need not wait for that.
    """

    def __init__(self, profile: UserProfile) -> None:
        self._lock = threading.RLock()
        self._waiting: dict[str, StoredTurn] = {}  # by event id: observed, and not in the index yet
        self._profile = profile
        self._portrait = MergedProfile(profile)
        self._called: dict[str, tuple[str, str]] = {}  # caller and agent by their names, by session
        self._recent: dict[str, deque[StoredTurn]] = {}  # the last turns of each session that was asked for
        self._whole: dict[str, StoredTurn] = {}  # by event id: a call asks for few turns again and again
        self._use(Index())

    @property
    def profile(self) -> UserProfile:
        """Who the caller is, as told last."""
        return self._profile

    @property
    def portrait(self) -> MergedProfile:
        """All that is known of who the caller is."""
        return self._portrait

    @property
    def unmerged(self) -> int:
        """How many documents no index file holds yet."""
        return self._caught_up().unmerged_count

    def __len__(self) -> int:
        """Count the passages that can be found."""
        return len(self._caught_up())

    def observe(self, event: Event) -> None:
        """Take in an event; one that is known already changes nothing."""
        if event.type is EventType.SESSION_START:
            self._meet(event)
        elif event.type is EventType.TURN:
            self._hear(event)

    def knows(self, event_id: str) -> bool:
        """Whether a turn is known by its event's id."""
        with self._lock:
            return self._is_known(event_id)

    def learn(self, facts: Sequence[ReplicaFact]) -> None:
        """Take in facts; one whose id is known takes the place of the old one."""
        self._index.add(map(to_document, facts))  # without the lock: searches go on

    def unlearn(self, fact_ids: Iterable[str]) -> None:
        """Let go of facts."""
        self._index.remove(map(document_id, fact_ids))

    def unhear(self, event_ids: Iterable[str]) -> None:
        """Let go of turns."""
        with self._lock:
            index = self._caught_up()
            for event_id in event_ids:
                spoken = [
                    document.id
                    for first in first_ids(event_id)
                    for document in index.contiguous_run(first, lambda each, of=event_id: event_of(each) == of)  # type: ignore[misc]
                ]
                index.remove(set(spoken))
            self._recent.clear()
            self._whole.clear()

    def find(self, found: CloudProfile, facts: Sequence[str]) -> None:
        """Take in who the caller is, as the cloud found; ``facts`` are sentences."""
        with self._lock:
            self._portrait = MergedProfile(self._profile, found, tuple(facts))
            self._names.tell(CALLER, found.name or "")

    def clear(self) -> None:
        """Forget everything; searches that are under way may still find it."""
        with self._lock:
            self._waiting.clear()
            self._called.clear()
            self._profile = UserProfile()
            self._portrait = MergedProfile(self._profile)
            self._use(Index())

    def turns(self, session_id: str) -> list[StoredTurn]:
        """A session's turns, oldest first."""
        return to_turns(self.group(session_id))

    def group(self, session_id: str) -> list[Document]:
        """All passages of a session, in order."""
        return self._caught_up().group_documents(session_id)

    def count(self, session_id: str) -> int:
        """How many turns a session has."""
        with self._lock:
            for turn in reversed(self._waiting.values()):
                if turn.session_id == session_id:
                    return turn.number + 1
            last = self._index.group_documents(session_id, last=1)
            return to_turn(last).number + 1 if last else 0

    def catch_up(self) -> None:
        """Index what was observed since somebody last asked."""
        self._caught_up()

    def recent(self, session_id: str) -> list[StoredTurn]:
        """A session's last turns, oldest first."""
        with self._lock:
            return list(self._recent_of(session_id))

    def talk(self, session_id: str) -> tuple[str, ...]:
        """What was said last in a session, a text for each side of each turn, oldest first."""
        return tuple(text for turn in self.recent(session_id) for text in (turn.user_text, turn.assistant_text) if text)

    def query(
        self, text: str, now: float | None, *, group: str | None = None, without_group: str | None = None
    ) -> Query:
        """A question to this memory, with whom it asks about, and by which names."""
        with self._lock:
            self._caught_up()
            meant = self._names.meant(text)
            names = self._names.all()
        return Query(
            text,
            speaker=meant.side,
            speaker_is_named=meant.by_name,
            speaker_names=names,
            group=group,
            exclude_group=without_group,
            now=now,
        )

    def search(self, query: Query, limit: int, keeps: Predicate | None = None) -> list[Hit]:
        """The best passages for a query, best first; ``keeps`` judges the metadata of their turns."""
        keeps_document = None if keeps is None else lambda each: keeps(_metadata(each))
        return self._caught_up().search(query, limit, keeps_document)

    def turn_of(self, document: Document) -> StoredTurn:
        """The whole turn that a passage is of."""
        event_id = event_of(document)
        turn = self._whole.get(event_id)
        if turn is None:
            if len(self._whole) >= _KEPT_TURNS:
                self._whole.clear()
            found = self._index.contiguous_run(document.id, lambda each: event_of(each) == event_id)
            turn = to_turn(found or [document])
            if found:
                self._whole[event_id] = turn
        return turn

    def open(self, path: Path, accepts: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Go on with what an index file holds, and with what was observed here; tell whether that was possible.

        ``accepts`` judges what was noted in the file. Raises `memoair_index.ContainerError`, ValueError or OSError for
        a file that is no good. Where it is not used, nothing changes.
        """
        index = Index.open(path)
        index.verify()  # before anybody walks along links that lead nowhere
        names, profile = _read_note(index.file_metadata)
        if not accepts(index.file_metadata):
            return False
        with self._lock:
            observed = self._caught_up().documents()  # a call may have begun before the file was found
            self._use(index)
            self._names.from_note(names)
            if profile.told_at > self._profile.told_at:
                self._tell(profile)
            for turn in to_turns(each for each in observed if not is_fact(each)):
                if not self._is_known(turn.event_id):
                    self._add(attrs.evolve(turn, number=self.count(turn.session_id)))
            index.add(each for each in observed if is_fact(each))
            self._caught_up()
        return True

    def merge(self, path: Path, note: Callable[[], Mapping[str, Any]]) -> None:
        """Write all turns to an index file and go on with it; ``note`` is noted beside what is needed here.

        Raises OSError where the disk refuses.
        """
        with self._lock:  # not within the note: whoever holds this lock may be waiting for the index
            self._caught_up()
            own = {"names": msgspec.to_builtins(self._names.to_note()), "profile": snapshot(self._profile).decode()}
        self._index.merge(path, lambda: {**note(), **own})

    def _use(self, index: Index) -> None:
        self._index = index
        self._names = SpeakerNames(index.document_frequency)
        self._names.tell(CALLER, self._portrait.name)
        self._recent.clear()
        self._whole.clear()

    def _tell(self, profile: UserProfile) -> None:
        self._profile = profile
        self._portrait = attrs.evolve(self._portrait, told=profile)

    def _recent_of(self, session_id: str) -> "deque[StoredTurn]":
        recent = self._recent.get(session_id)
        if recent is None:
            last = self._caught_up().group_documents(session_id, last=_RECENT_DOCUMENTS)
            turns = to_turns(last)
            if len(last) == _RECENT_DOCUMENTS:
                turns = turns[1:] or [self.turn_of(last[-1])]  # of the first one, something may be missing
            recent = deque(turns[-_RECENT_TURNS:], maxlen=_RECENT_TURNS)
            if last:  # a session that nobody has spoken in is not kept in mind
                self._recent[session_id] = recent
        return recent

    def _meet(self, event: Event) -> None:
        user = event.payload.get("user") or {}
        metadata = event.payload.get("metadata") or {}
        caller, agent = str(user.get("name") or ""), str(metadata.get("assistantName") or "")
        with self._lock:
            self._called[event.session_id] = (caller, agent)
            self._names.tell(CALLER, caller)
            self._names.tell(AGENT, agent)
            self._tell(self._profile.told(user, event.occurred_at))

    def _hear(self, event: Event) -> None:
        payload = as_heard(event.payload)  # not all that the cloud has came from a runtime
        metadata = payload.get("metadata") or {}
        with self._lock:
            if self._is_known(event.event_id):
                return
            caller, agent = self._called.get(event.session_id, ("", ""))
            told_agent = str(metadata.get("assistantName") or "")
            caller = caller or self._portrait.name or "Caller"
            agent = told_agent or agent or "Agent"
            if caller.casefold() == agent.casefold():  # who is called as the agent must not speak as the agent
                caller, agent = f"{caller} (caller)", f"{agent} (agent)"
            turn = StoredTurn(
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
            self._names.tell(AGENT, told_agent)
            self._add(turn)

    def _is_known(self, event_id: str) -> bool:
        return event_id in self._waiting or any(each in self._index for each in first_ids(event_id))

    def _add(self, turn: StoredTurn) -> None:
        self._waiting[turn.event_id] = turn
        if turn.session_id in self._recent:  # else it is read when somebody asks
            self._recent[turn.session_id].append(turn)
        if len(self._waiting) >= _MOST_WAITING:
            self._caught_up()

    def _caught_up(self) -> Index:
        """The index, with all that was observed."""
        if self._waiting:
            with self._lock:
                turns = list(self._waiting.values())
                try:
                    self._index.add(document for turn in turns for document in to_documents(turn))
                    for turn in turns:
                        self._names.hear(CALLER, turn.user_text)
                        self._names.hear(AGENT, turn.assistant_text)
                finally:
                    self._waiting.clear()  # what could not be indexed must not stand in the way for ever
        return self._index


def _read_note(note: Mapping[str, Any]) -> tuple[SpeakerNamesRecord, UserProfile]:
    """What an index file notes for this memory; raises ValueError where it notes something else."""
    kept = msgspec.convert(note, _SnapshotNote)
    return kept.names, from_snapshot(kept.profile.encode())


class _SnapshotNote(msgspec.Struct, frozen=True):
    names: SpeakerNamesRecord
    profile: str


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = document.metadata["metadata"]
    return metadata
