"""Reconcile memories with extracted facts: merging decides which memories are current; each change gets a version."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, timezone
from typing import Any, TypeVar

import attrs
from sqlalchemy import ColumnElement, Row, func, select, tuple_, update

from memoair_cloud.consolidation import Fact, FactKind, ProfileSummary, is_end, merge_facts, summarize_facts
from memoair_cloud.database.models import CallerProfile, EndUser, Memory, MemoryChange, Project
from memoair_cloud.memories.learnable import is_learnable
from memoair_cloud.memories.states import RETAINED_STATES, MemoryState, transition
from memoair_cloud.tenancy.scoped import ScopedSession

T = TypeVar("T")

_DISTANT_PAST = datetime.min.replace(tzinfo=timezone.utc)
_LINK_FIELDS = ("closed_by", "repeats", "absorbs")
_FACT_FIELDS = tuple(field.name for field in attrs.fields(Fact) if field.name not in _LINK_FIELDS)
# Columns instead of objects, which would take several times as long: a profile reads all current facts.
_FACT_COLUMNS = tuple(
    getattr(Memory, name) for name in ("id", *_FACT_FIELDS, "closed_by", "repeats", "corrected_at", "former_values")
)
_REDACTED_VALUES = {"text": "", "subject": "", "attribute": "", "value": "", "corrects": None, "former_values": None}
# SQLite allows 32,766 variables per statement, and a key takes two.
_MAX_KEYS_PER_STATEMENT = 5_000

# The attributes of facts that end others begin with it.
END_PREFIX = "end of "

FactKey = tuple[str, str]  # subject and attribute; facts with the same key are about the same thing


@attrs.define
class MemoryReconciler:
    """The memories of one user, within a transaction that has locked the user's row.

    Attributes:
        session: The session of the transaction.
        user: The locked row of the user.
        now: The time of the changes.
        actor: Who makes the changes: the name of an extractor, or ``"api"``.
    """

    session: ScopedSession
    user: EndUser
    now: datetime
    actor: str
    _version: int | None = attrs.field(init=False, default=None)  # assigned by the first change of this transaction
    # The number of recorded changes by memory id, loaded when needed.
    _change_counts: dict[str, int] = attrs.field(init=False, factory=dict)
    _redacted_keys: set[FactKey] = attrs.field(init=False, factory=set)  # the keys of redacted memories

    def replace_session_facts(
        self, session_id: str, facts: Iterable[Fact], redacted_kinds: Collection[str] = ()
    ) -> None:
        """Replace the facts of a session with newly extracted ones.

        Deleted facts do not come back, and corrected ones stay as corrected. Facts of kinds that the project excludes
        are not learned.

        Args:
            session_id: The session.
            facts: All facts that were found in it.
            redacted_kinds: More kinds that must not be learned from it: those that were redacted in it.
        """
        excluded = {*self._excluded_kinds(), *redacted_kinds}
        facts = [fact for fact in facts if is_learnable(fact, excluded)]
        known_rows = {row.id: row for row in self._load(Memory.session_id == session_id)}
        retained = {row.id: row for row in known_rows.values() if row.state in RETAINED_STATES}
        allowed = self._allowed_facts(facts, known_rows.values())
        for row in retained.values():
            if row.id not in allowed and row.corrected_at is None and not self._is_source_dropped(row):
                self._redact(row, MemoryState.WITHDRAWN)
        keys = {_key_of(fact) for fact in allowed.values()}
        keys |= {_key_of(row) for row in retained.values() if row.state in RETAINED_STATES}
        self._reconcile(keys | self._redacted_keys, allowed, known_rows)

    def withdraw_excluded(self, excluded: Collection[str]) -> int:
        """Withdraw the memories of excluded kinds; return how many. Corrections by hand stay: people wrote them."""
        rows = [row for row in self._load(Memory.state.in_(RETAINED_STATES)) if row.corrected_at is None]
        withdrawn = [row for row in rows if not is_learnable(to_fact(row), excluded)]
        for row in withdrawn:
            self._redact(row, MemoryState.WITHDRAWN)
        if withdrawn:
            self._reconcile(self._redacted_keys)
        return len(withdrawn)

    def withdraw_older(self, before: datetime) -> int:
        """Withdraw what was said before a time; return how many memories. Corrections by hand stay."""
        rows = self._load(Memory.state.in_(RETAINED_STATES), Memory.said_at < before, Memory.corrected_at.is_(None))
        for row in rows:
            self._redact(row, MemoryState.WITHDRAWN)
        if rows:
            self._reconcile(self._redacted_keys)
        return len(rows)

    def correct(self, memory: Memory, text: str, value: str, days: Mapping[str, date | None]) -> None:
        """Correct a memory by hand.

        Args:
            memory: The memory.
            text: Its new text.
            value: Its new value.
            days: The new values of ``holds_from`` and ``holds_until``, as far as they change.
        """
        self._record_change(memory, "corrected")
        memory.former_values = [*(memory.former_values or []), *([memory.value] if value != memory.value else [])]
        memory.text, memory.value, memory.corrected_at = text, value, self.now
        for name, day in days.items():
            setattr(memory, name, day)
        memory.version = self._next_version()
        self._reconcile({_key_of(memory)})

    def delete(self, memory: Memory) -> None:
        """Delete a memory and those with the same value, with all their content.

        Memories that it had replaced may become current again.
        """
        key, values = _key_of(memory), {memory.value, *(memory.former_values or ())}
        for row in self._load_by_keys([key]).values():
            if row.value in values:
                row.barred, row.deleted_at = _tombstone_hash(row), self.now
                self._record_change(row, "deleted")
                self._redact(row, MemoryState.DELETED)
            else:  # remaining corrections must not contain the deleted value either
                row.corrects = None if row.corrects in values else row.corrects
                row.former_values = [former for former in row.former_values or () if former not in values] or None
        self._reconcile({key})

    def _allowed_facts(self, facts: Iterable[Fact], known_rows: Collection[Memory]) -> dict[str, Fact]:
        """Return the facts that may be learned, by memory id.

        A fact is excluded if it was deleted or corrected by hand. It is recognized by its id; by its turn and kind, if
        the turn is now interpreted differently; or by its content, if that was deleted after it was said.
        """
        manual = [row for row in known_rows if row.corrected_at or row.state == MemoryState.DELETED]
        manual_ids, manual_turns = {row.id for row in manual}, {(row.event_id, row.kind) for row in manual}
        known_ids = {row.id for row in known_rows if row.state in RETAINED_STATES}
        candidates = [
            fact
            for fact in facts
            if fact.id not in manual_ids
            and (fact.id in known_ids or (fact.event_id, fact.kind.value) not in manual_turns)
        ]
        deleted_at: dict[str, datetime] = {}
        for row in self._load_by_tombstones({_tombstone_hash(fact) for fact in candidates}):
            if row.barred and row.deleted_at:
                deleted_at[row.barred] = max(row.deleted_at, deleted_at.get(row.barred, row.deleted_at))
        return {
            fact.id: fact for fact in candidates if fact.said_at > deleted_at.get(_tombstone_hash(fact), _DISTANT_PAST)
        }

    def _reconcile(
        self,
        keys: Collection[FactKey],
        new_facts: Mapping[str, Fact] | None = None,
        known_rows: Mapping[str, Memory] | None = None,
    ) -> None:
        """Merge the memories of these keys again, including new facts, and update the profile."""
        self.session.flush()
        keys = {*keys, *self._linked_keys(new_facts or {})}
        rows = {**(known_rows or {}), **self._load_by_keys(keys)}
        facts = {row.id: to_fact(row) for row in rows.values() if row.state in RETAINED_STATES and _key_of(row) in keys}
        facts |= new_facts or {}
        # The ids of a fact and its memory differ if a value was corrected.
        memory_ids = {fact.id: memory_id for memory_id, fact in facts.items()}
        for fact in merge_facts(facts.values()):
            memory_id = memory_ids[fact.id]
            self._write_memory(memory_id, fact, rows.get(memory_id), memory_ids)
        self.session.flush()
        self._update_profile()

    def _write_memory(self, memory_id: str, fact: Fact, row: Memory | None, memory_ids: Mapping[str, str]) -> None:
        state = _state_of(fact)
        links = {
            "closed_by": memory_ids[fact.closed_by] if fact.closed_by else None,
            "repeats": memory_ids[fact.repeats] if fact.repeats else None,
        }
        if row is not None and row.corrected_at is not None:
            values: dict[str, object] = dict(links)  # an extractor must not change what was corrected by hand
        else:
            values = {**_fact_values(fact), **links}
        if row is None:
            row = Memory(
                project_id=self.session.scope.project_id, user_id=self.user.id, id=memory_id, learned_at=self.now
            )
            row.state, row.extractor, row.version = state.value, self.actor, self._next_version()
            self.session.add(row)
        else:
            before = MemoryState(row.state)
            if before is state and all(getattr(row, name) == value for name, value in values.items()):
                return
            if before is MemoryState.CURRENT and state is MemoryState.HISTORY:
                self._record_change(row, "closed")
            elif before is MemoryState.HISTORY and state is MemoryState.CURRENT:
                self._record_change(row, "reopened")
            row.state, row.version = transition(before, state).value, self._next_version()
        for name, value in values.items():
            setattr(row, name, value)

    def _redact(self, row: Memory, state: MemoryState) -> None:
        """Remove the content of a memory and of its recorded changes."""
        self._redacted_keys.add(_key_of(row))
        row.state, row.version = transition(MemoryState(row.state), state).value, self._next_version()
        row.closed_by = row.repeats = row.holds_from = row.holds_until = row.corrected_at = None
        for name, value in _REDACTED_VALUES.items():
            setattr(row, name, value)
        self.session.flush()
        conditions = MemoryChange.user_id == self.user.id, MemoryChange.memory_id == row.id
        self.session.execute(
            update(MemoryChange).where(*conditions).values(text="", value=""),
            execution_options={"synchronize_session": False},
        )

    def _record_change(self, row: Memory, action: str) -> None:
        """Record a change of a memory, with its content before the change."""
        if row.id not in self._change_counts:
            statement = select(func.max(MemoryChange.number)).where(
                MemoryChange.user_id == self.user.id, MemoryChange.memory_id == row.id
            )
            self._change_counts[row.id] = self.session.scalar(statement) or 0
        self._change_counts[row.id] += 1
        self.session.add(
            MemoryChange(
                project_id=self.session.scope.project_id,
                user_id=self.user.id,
                memory_id=row.id,
                number=self._change_counts[row.id],
                at=self.now,
                action=action,
                by=self.actor,
                text=row.text,
                value=row.value,
            )
        )

    def _is_source_dropped(self, row: Memory) -> bool:
        """Return whether the turn of a memory was dropped for its age: that it is not found again says nothing."""
        until = self.user.turns_dropped_until
        return until is not None and row.said_at < until

    def _next_version(self) -> int:
        if self._version is None:
            self.user.memory_version += 1
            self._version = self.user.memory_version
        return self._version

    def _excluded_kinds(self) -> Collection[str]:
        project = self.session.get(Project, self.session.scope.project_id)
        return () if project is None else project.excluded_kinds

    def _load(self, *conditions: object) -> list[Memory]:
        return list(self.session.scalars(select(Memory).where(Memory.user_id == self.user.id, *conditions)))  # type: ignore[arg-type]

    def _load_by_keys(self, keys: Collection[FactKey]) -> dict[str, Memory]:
        found = dict[str, Memory]()
        for batch in _split_batches(keys):
            has_key = tuple_(Memory.subject, Memory.attribute).in_(batch)
            found |= {row.id: row for row in self._load(has_key, Memory.state.in_(RETAINED_STATES))}
        return found

    def _linked_keys(self, new_facts: Mapping[str, Fact]) -> set[FactKey]:
        """Return the keys that facts like "Milo died" may end, and those of such facts; empty if there are none."""
        ends = self._load_keys(Memory.attribute.startswith(END_PREFIX))
        if not ends and not any(map(is_end, new_facts.values())):
            return set()
        return ends | self._load_keys(Memory.kind.in_([FactKind.RELATION.value, FactKind.PLAN.value]))

    def _load_keys(self, condition: ColumnElement[bool]) -> set[FactKey]:
        statement = select(Memory.subject, Memory.attribute).distinct()
        rows = self.session.execute(
            statement.where(Memory.user_id == self.user.id, Memory.state.in_(RETAINED_STATES), condition)
        )
        return {(row.subject, row.attribute) for row in rows}

    def _load_by_tombstones(self, hashes: Collection[str]) -> list[Memory]:
        return [row for batch in _split_batches(hashes) for row in self._load(Memory.barred.in_(batch))]

    def _update_profile(self) -> None:
        statement = select(*_FACT_COLUMNS).where(Memory.user_id == self.user.id, Memory.state == MemoryState.CURRENT)
        rows = self.session.execute(statement.order_by(Memory.said_at, Memory.number, Memory.id))
        summary = summarize_facts(map(to_fact, rows), self.now.date())
        profile = self.session.get(CallerProfile, (self.session.scope.project_id, self.user.id))
        if profile is None:
            if summary == ProfileSummary():
                return
            profile = CallerProfile(project_id=self.session.scope.project_id, user_id=self.user.id)
            self.session.add(profile)
        elif (profile.summary, profile.attributes) == (summary.summary, summary.attributes):
            return
        self.user.profile_version += 1
        profile.summary, profile.attributes, profile.updated_at = summary.summary, dict(summary.attributes), self.now


def to_fact(row: Memory | Row[Any]) -> Fact:
    """Convert a memory with content to a fact. A corrected memory counts as said at the time of the correction."""
    return Fact(
        kind=FactKind(row.kind),
        text=row.text,
        subject=row.subject,
        attribute=row.attribute,
        value=row.value,
        # So the fact's id differs from that of the extracted fact, even if both have the same value.
        event_id=f"correction of {row.id}" if row.corrected_at else row.event_id,
        session_id=row.session_id,
        number=row.number,
        said_at=row.corrected_at or row.said_at,
        holds_from=row.holds_from,
        holds_until=row.holds_until,
        is_one_of_many=row.is_one_of_many,
        corrects=row.corrects,
        absorbs=tuple(row.former_values or ()) if row.corrected_at else None,
        closed_by=row.closed_by,
        repeats=row.repeats,
    )


def _fact_values(fact: Fact) -> dict[str, object]:
    """Return the column values of a fact, without its links to other facts."""
    return {**{name: getattr(fact, name) for name in _FACT_FIELDS}, "kind": fact.kind.value}


def _key_of(item: Fact | Memory) -> FactKey:
    return item.subject, item.attribute


def _state_of(fact: Fact) -> MemoryState:
    if fact.repeats is not None:
        return MemoryState.REPEAT
    return MemoryState.CURRENT if fact.closed_by is None else MemoryState.HISTORY


def _tombstone_hash(item: Fact | Memory) -> str:
    """Return the hash by which deleted content is recognized when it is said again."""
    parts = (item.subject, item.attribute, item.value.casefold())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _split_batches(values: Collection[T]) -> Iterator[list[T]]:
    items = list(values)
    return (items[start : start + _MAX_KEYS_PER_STATEMENT] for start in range(0, len(items), _MAX_KEYS_PER_STATEMENT))
