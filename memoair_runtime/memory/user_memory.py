"""The memory of one user: what was said in all sessions, and facts, ready to be searched."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from memoair_index import Document, Hit, Index, Query
from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.enums import EventType
from memoair_runtime.filters import Predicate
from memoair_runtime.memory.facts import fact_document_id, is_fact, to_document
from memoair_runtime.memory.indexed_turns import is_indexed, remove_turn, take_turns_from
from memoair_runtime.memory.profile import CloudProfile, MergedProfile, UserProfile, decode_snapshot, encode_snapshot
from memoair_runtime.memory.snapshot_metadata import SnapshotMetadata, decode_metadata, encode_metadata
from memoair_runtime.memory.speaker_names import AGENT, CALLER, SpeakerNames
from memoair_runtime.memory.turn import StoredTurn, event_id_of, from_event, to_documents, to_turn, to_turns
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.replica_file import ReplicaFact

# The context of the next question in a call.
_RECENT_TURNS = 24
_RECENT_DOCUMENTS = 4 * _RECENT_TURNS
_MAX_CACHED_TURNS = 512
# Turns that wait to be indexed: a search during a batch import should not have to index too many.
_MAX_PENDING_TURNS = 64


class UserMemory:
    """Turns, facts and profile of one user, built from events in any order of sessions. Thread-safe.

    A turn is indexed when a search needs it, or in the background before that, so that saving it does not wait.

    Args:
        profile: The profile as last stored.
    """

    def __init__(self, profile: UserProfile) -> None:
        self._lock = threading.RLock()
        self._pending: dict[str, StoredTurn] = {}  # by event id: turns that are not indexed yet
        self._superseded: set[str] = set()  # ids of events that another one corrects, whichever of them comes first
        self._profile = profile
        self._merged_profile = MergedProfile(profile)
        self._session_names: dict[str, tuple[str, str]] = {}  # names of caller and agent, by session
        self._recent_turns: dict[str, tuple[StoredTurn, ...]] = {}  # the last turns of each session that was searched
        self._turn_cache: dict[str, StoredTurn] = {}  # by event id: a call finds the same few turns again and again
        self._set_index(Index())

    @property
    def profile(self) -> UserProfile:
        """The profile as stated by applications."""
        return self._profile

    @property
    def merged_profile(self) -> MergedProfile:
        """Everything that is known about the user."""
        return self._merged_profile

    @property
    def unmerged_count(self) -> int:
        """Number of documents that no index file holds."""
        return self._up_to_date_index().unmerged_count

    def __len__(self) -> int:
        """Count the passages that can be found."""
        return len(self._up_to_date_index())

    def apply_event(self, event: Event) -> None:
        """Apply an event. An event that is known has no effect."""
        if event.type is EventType.SESSION_START:
            self._on_session_start(event)
        elif event.type is EventType.TURN:
            self._on_turn(event)

    def has_turn(self, event_id: str) -> bool:
        """Return whether the turn of an event is known, as it was said or corrected."""
        with self._lock:
            return self._has_turn(event_id)

    def add_facts(self, facts: Sequence[ReplicaFact]) -> None:
        """Add facts. A fact with a known id replaces the old one."""
        self._index.add(map(to_document, facts))  # without the lock, so that searches go on

    def remove_facts(self, fact_ids: Iterable[str]) -> None:
        """Remove facts."""
        self._index.remove(map(fact_document_id, fact_ids))

    def remove_turns(self, event_ids: Iterable[str]) -> None:
        """Remove turns by their event ids."""
        with self._lock:
            index = self._up_to_date_index()
            for event_id in event_ids:
                remove_turn(index, event_id)
            self._clear_caches()

    def set_derived_profile(self, derived: CloudProfile, facts: Sequence[str]) -> None:
        """Set the profile that the cloud derived.

        Args:
            derived: The profile.
            facts: Lasting facts about the user, as sentences.
        """
        with self._lock:
            self._merged_profile = MergedProfile(self._profile, derived, tuple(facts))
            self._names.add_stated_name(CALLER, derived.name or "")

    def clear(self) -> None:
        """Remove everything. Searches that are running may still find it."""
        with self._lock:
            self._pending.clear()
            self._superseded.clear()
            self._session_names.clear()
            self._profile = UserProfile()
            self._merged_profile = MergedProfile(self._profile)
            self._set_index(Index())

    def get_turns(self, session_id: str) -> list[StoredTurn]:
        """Return the turns of a session, oldest first."""
        return to_turns(self.get_documents(session_id))

    def get_documents(self, session_id: str) -> list[Document]:
        """Return all passages of a session, in order."""
        return self._up_to_date_index().group_documents(session_id)

    def count_turns(self, session_id: str) -> int:
        """Count the turns of a session."""
        with self._lock:
            for turn in reversed(self._pending.values()):
                if turn.session_id == session_id:
                    return turn.ordinal + 1
            last_documents = self._index.group_documents(session_id, last=1)
            return to_turn(last_documents).ordinal + 1 if last_documents else 0

    def index_pending(self) -> None:
        """Index the turns that were added since the last search."""
        self._up_to_date_index()

    def get_recent_turns(self, session_id: str) -> tuple[StoredTurn, ...]:
        """Return the last turns of a session, oldest first. Does not wait for turns that are being indexed."""
        recent = self._recent_turns.get(session_id)
        if recent is not None:
            return recent
        has_lock = self._lock.acquire(blocking=False)
        try:
            recent = self._read_recent_turns(session_id)
            # Sessions without turns are not cached, nor what was read without the lock: a turn may have been added.
            if has_lock and recent:
                self._recent_turns[session_id] = recent
        finally:
            if has_lock:
                self._lock.release()
        return recent

    def get_recent_texts(self, session_id: str) -> tuple[str, ...]:
        """Return what was said last in a session: a text for each side of each turn, oldest first."""
        return tuple(
            text for turn in self.get_recent_turns(session_id) for text in (turn.user_text, turn.assistant_text) if text
        )

    def build_query(
        self, text: str, now: float | None, *, group: str | None = None, without_group: str | None = None
    ) -> Query:
        """Return a query for `search`, with the names of both sides, and the side that the question is about.

        Args:
            text: The question.
            now: The time of asking, in seconds since the epoch.
            group: Search this session only.
            without_group: Leave out this session.
        """
        with self._lock:
            self._up_to_date_index()
            reference = self._names.find_reference(text)
            names = self._names.all_names()
        return Query(
            text,
            speaker=reference.side,
            speaker_is_named=reference.by_name,
            speaker_names=names,
            group=group,
            exclude_group=without_group,
            now=now,
        )

    def search(self, query: Query, limit: int, predicate: Predicate | None = None) -> list[Hit]:
        """Search turns and facts.

        Args:
            query: See `build_query`.
            limit: Maximum number of hits.
            predicate: A condition on the metadata of turns and facts.

        Returns:
            Passages, best first.
        """
        document_predicate = None if predicate is None else lambda document: predicate(_turn_metadata(document))
        return self._up_to_date_index().search(query, limit, document_predicate)

    def latest_documents(self, count: int, without_session: str, predicate: Predicate | None = None) -> list[Document]:
        """Return the passages of turns that were spoken last, the latest first.

        Args:
            count: Maximum number of passages.
            without_session: Leave out this session.
            predicate: A condition on the metadata of turns.
        """

        def is_wanted(document: Document) -> bool:
            return not is_fact(document) and _is_wanted(document, without_session, predicate)

        return self._up_to_date_index().latest_documents(count, is_wanted)

    def all_documents(self, max_count: int, without_session: str, predicate: Predicate | None = None) -> list[Document]:
        """Return all passages of turns and facts, or none if the memory holds more than ``max_count``.

        Args:
            max_count: Maximum number of passages, those of the left-out session included.
            without_session: Leave out this session.
            predicate: A condition on the metadata of turns and facts.
        """
        index = self._up_to_date_index()
        if len(index) > max_count:
            return []
        return [document for document in index.documents() if _is_wanted(document, without_session, predicate)]

    def get_turn(self, document: Document) -> StoredTurn:
        """Return the whole turn that a passage belongs to."""
        event_id = event_id_of(document)
        turn = self._turn_cache.get(event_id)
        if turn is None:
            if len(self._turn_cache) >= _MAX_CACHED_TURNS:
                self._turn_cache.clear()
            documents = self._index.contiguous_run(document.id, lambda other: event_id_of(other) == event_id)
            turn = to_turn(documents or [document])
            if documents:
                self._turn_cache[event_id] = turn
        return turn

    def open_snapshot(self, path: Path, accepts: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Continue with an index file, together with the turns and facts that are in memory already.

        Args:
            path: The file.
            accepts: Decides by the file's metadata whether to use it.

        Returns:
            Whether the file is used. If not, nothing changes.

        Raises:
            ContainerError: The file is damaged.
            ValueError: Its metadata has another structure.
            OSError: It cannot be read.
        """
        index = Index.open(path)
        index.verify()  # before it is used: its links may be wrong
        metadata = decode_metadata(index.file_metadata)
        profile, superseded = decode_snapshot(metadata.profile.encode()), set(metadata.superseded)
        if not accepts(index.file_metadata):
            return False
        with self._lock:
            current_documents = self._up_to_date_index().documents()  # a call may have started before
            self._set_index(index)
            self.remove_turns(self._superseded - superseded)  # corrected since the file was written
            self._superseded |= superseded
            self._names.add_record(metadata.names)
            if profile.stated_at > self._profile.stated_at:
                self._set_profile(profile)
            for turn in to_turns(document for document in current_documents if not is_fact(document)):
                if not self._has_turn(turn.event_id):
                    self._add_turn(attrs.evolve(turn, ordinal=self.count_turns(turn.session_id)))
            index.add(document for document in current_documents if is_fact(document))
            self._up_to_date_index()
        return True

    def write_snapshot(self, path: Path, collect_metadata: Callable[[], Mapping[str, Any]]) -> None:
        """Write everything to an index file and continue with it.

        Args:
            path: The new file.
            collect_metadata: Returns metadata to store in the file, besides that of the memory itself.

        Raises:
            OSError: The file cannot be written.
        """
        with self._lock:  # not within the callback: a holder of this lock may be waiting for the index
            self._up_to_date_index()
            profile = encode_snapshot(self._profile).decode()
            metadata = SnapshotMetadata(self._names.to_record(), profile, tuple(sorted(self._superseded)))
            own_metadata = encode_metadata(metadata)
        self._index.merge(path, lambda: {**collect_metadata(), **own_metadata})

    def _set_index(self, index: Index) -> None:
        self._index = index
        self._names = SpeakerNames(index.document_frequency)
        self._names.add_stated_name(CALLER, self._merged_profile.name)
        self._clear_caches()

    def _clear_caches(self) -> None:
        self._recent_turns.clear()
        self._turn_cache.clear()

    def _set_profile(self, profile: UserProfile) -> None:
        self._profile = profile
        self._merged_profile = attrs.evolve(self._merged_profile, stated=profile)

    def _read_recent_turns(self, session_id: str) -> tuple[StoredTurn, ...]:
        # The pending turns first: without the lock, one may move from there to the index between the two reads.
        pending = [turn for turn in list(self._pending.values()) if turn.session_id == session_id]
        pending_ids = {turn.event_id for turn in pending}
        documents = self._index.group_documents(session_id, last=_RECENT_DOCUMENTS)
        turns = to_turns(documents)
        if len(documents) == _RECENT_DOCUMENTS:
            turns = turns[1:] or [self.get_turn(documents[-1])]  # the first one may be incomplete
        indexed = [turn for turn in turns if turn.event_id not in pending_ids]
        return tuple([*indexed, *pending][-_RECENT_TURNS:])

    def _on_session_start(self, event: Event) -> None:
        user = event.payload.get("user") or {}
        metadata = event.payload.get("metadata") or {}
        caller_name, agent_name = str(user.get("name") or ""), str(metadata.get("assistantName") or "")
        with self._lock:
            self._session_names[event.session_id] = (caller_name, agent_name)
            self._names.add_stated_name(CALLER, caller_name)
            self._names.add_stated_name(AGENT, agent_name)
            self._set_profile(self._profile.updated(user, event.occurred_at))

    def _on_turn(self, event: Event) -> None:
        corrected_id = corrected_event_id(event.payload)
        with self._lock:
            replaced = [] if corrected_id is None else self._supersede(event.session_id, corrected_id)
            is_known = self._has_turn(event.event_id) or any(turn.event_id == event.event_id for turn in replaced)
            if not is_known:
                ordinal = replaced[0].ordinal if replaced else self.count_turns(event.session_id)
                self._add_turn(self._to_turn(event, ordinal))
            for turn in replaced[1:]:
                self._add_turn(turn)

    def _to_turn(self, event: Event, ordinal: int) -> StoredTurn:
        caller_name, agent_name = self._session_names.get(event.session_id, ("", ""))
        stated_agent_name = str((event.payload.get("metadata") or {}).get("assistantName") or "")
        self._names.add_stated_name(AGENT, stated_agent_name)
        return from_event(event, ordinal, caller_name or self._merged_profile.name, stated_agent_name or agent_name)

    def _supersede(self, session_id: str, event_id: str) -> list[StoredTurn]:
        """Remember that a turn has been corrected, and take it and all later turns of its session out of the memory.

        The caller adds the later ones again, behind the correction: the order in the index is that of the call.

        Returns:
            The turns, in order; empty if the corrected one is not in the memory.
        """
        self._superseded.add(event_id)
        if event_id in self._pending:
            ids = list(self._pending)
            later_ids = ids[ids.index(event_id) :]
            taken = {id_: self._pending[id_] for id_ in later_ids if self._pending[id_].session_id == session_id}
            self._pending = {id_: turn for id_, turn in self._pending.items() if id_ not in taken}
            self._clear_caches()
            return list(taken.values())
        if not is_indexed(self._index, event_id):
            return []
        turns = take_turns_from(self._up_to_date_index(), session_id, event_id)
        self._clear_caches()
        return turns

    def _has_turn(self, event_id: str) -> bool:
        return event_id in self._superseded or event_id in self._pending or is_indexed(self._index, event_id)

    def _add_turn(self, turn: StoredTurn) -> None:
        self._pending[turn.event_id] = turn
        if turn.session_id in self._recent_turns:  # else it is read when needed
            self._recent_turns[turn.session_id] = (*self._recent_turns[turn.session_id], turn)[-_RECENT_TURNS:]
        if len(self._pending) >= _MAX_PENDING_TURNS:
            self._up_to_date_index()

    def _up_to_date_index(self) -> Index:
        """Return the index after adding pending turns."""
        if self._pending:
            with self._lock:
                turns = list(self._pending.values())
                try:
                    self._index.add(document for turn in turns for document in to_documents(turn))
                    for turn in turns:
                        self._names.add_utterance(CALLER, turn.user_text)
                        self._names.add_utterance(AGENT, turn.assistant_text)
                finally:
                    self._pending.clear()  # turns that cannot be indexed must not block others
        return self._index


def _turn_metadata(document: Document) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = document.metadata["metadata"]
    return metadata


def _is_wanted(document: Document, without_session: str, predicate: Predicate | None) -> bool:
    return document.group != without_session and (predicate is None or predicate(_turn_metadata(document)))
