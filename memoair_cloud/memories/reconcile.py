"""From facts to rows and back: which memories stand is worked out by merging, and what has changed gets a version."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, timezone
from typing import Any, TypeVar

import attrs
from sqlalchemy import Row, func, select, tuple_, update

from memoair_cloud.consolidation import Fact, FactKind, ProfileSummary, merged, summarise
from memoair_cloud.database.models import CallerProfile, EndUser, Memory, MemoryChange
from memoair_cloud.memories.states import STANDING, MemoryState, moved
from memoair_cloud.tenancy.scoped import ScopedSession

T = TypeVar("T")

_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_LINKS = ("closed_by", "repeats", "absorbs")
_TOLD = tuple(field.name for field in attrs.fields(Fact) if field.name not in _LINKS)
# What a fact is made of; objects would take several times as long, and a profile looks at all that stand.
_OF_FACTS = tuple(
    getattr(Memory, name) for name in ("id", *_TOLD, "closed_by", "repeats", "corrected_at", "former_values")
)
_NO_WORDS = {"text": "", "subject": "", "attribute": "", "value": "", "corrects": None, "former_values": None}
# So many keys in one statement: SQLite takes 32,766 variables, and every key has two of them.
_AT_ONCE = 5_000

Key = tuple[str, str]  # subject and attribute: facts of one key speak of the same thing


@attrs.define
class MemoryReconciler:
    """The memories of one caller, within a transaction that has locked his row.

    ``by`` tells who changes them: an extractor, or "api".
    """

    session: ScopedSession
    user: EndUser
    now: datetime
    by: str
    _version: int | None = attrs.field(init=False, default=None)  # of this transaction's changes, once there is one
    _changes: dict[str, int] = attrs.field(init=False, factory=dict)  # how many each memory has, as far as asked for
    _emptied: set[Key] = attrs.field(init=False, factory=set)  # what the memories that went spoke of

    def relearn(self, session_id: str, facts: Iterable[Fact]) -> None:
        """What was found in a call takes the place of what was found in it before.

        What somebody has deleted does not come back, and what somebody has corrected stays as he said.
        """
        before = {row.id: row for row in self._rows(Memory.session_id == session_id)}
        standing = {row.id: row for row in before.values() if row.state in STANDING}
        found = self._teachable(facts, before.values())
        for row in standing.values():
            if row.id not in found and row.corrected_at is None:
                self._empty(row, MemoryState.WITHDRAWN)
        keys = {_key(fact) for fact in found.values()}
        keys |= {_key(row) for row in standing.values() if row.state in STANDING}
        self._settle(keys | self._emptied, found, before)

    def correct(self, memory: Memory, text: str, value: str, days: Mapping[str, date | None]) -> None:
        """Say it as somebody says that it is; ``days`` are ``holds_from`` and ``holds_until``, where they change."""
        self._note(memory, "corrected")
        memory.former_values = [*(memory.former_values or []), *([memory.value] if value != memory.value else [])]
        memory.text, memory.value, memory.corrected_at = text, value, self.now
        for name, day in days.items():
            setattr(memory, name, day)
        memory.version = self._next_version()
        self._settle({_key(memory)})

    def delete(self, memory: Memory) -> None:
        """Leave nothing of it that was said, nor of those that say the same; what it had closed may hold again."""
        key, values = _key(memory), {memory.value, *(memory.former_values or ())}
        for row in self._of_keys([key]).values():
            if row.value in values:
                row.barred, row.deleted_at = _barred(row), self.now
                self._note(row, "deleted")
                self._empty(row, MemoryState.DELETED)
            else:  # what they have put right is no longer to be read in them
                row.corrects = None if row.corrects in values else row.corrects
                row.former_values = [each for each in row.former_values or () if each not in values] or None
        self._settle({key})

    def _teachable(self, facts: Iterable[Fact], before: Collection[Memory]) -> dict[str, Fact]:
        """The facts that may be learned, by the ids of their memories.

        Not what a person has deleted or corrected: by its id; by its turn, where the same turn is read in another way
        now; or by what it says, where that was deleted after it was said.
        """
        by_person = [row for row in before if row.corrected_at or row.state == MemoryState.DELETED]
        ids, turns = {row.id for row in by_person}, {(row.event_id, row.kind) for row in by_person}
        known = {row.id for row in before if row.state in STANDING}
        taught = [
            fact
            for fact in facts
            if fact.id not in ids and (fact.id in known or (fact.event_id, fact.kind.value) not in turns)
        ]
        deleted: dict[str, datetime] = {}
        for row in self._of_bars({_barred(fact) for fact in taught}):
            if row.barred and row.deleted_at:
                deleted[row.barred] = max(row.deleted_at, deleted.get(row.barred, row.deleted_at))
        return {fact.id: fact for fact in taught if fact.said_at > deleted.get(_barred(fact), _NEVER)}

    def _settle(
        self, keys: Collection[Key], found: Mapping[str, Fact] | None = None, known: Mapping[str, Memory] | None = None
    ) -> None:
        """Work out anew how the memories of these keys stand to each other, those ``found`` now among them."""
        self.session.flush()
        rows = {**(known or {}), **self._of_keys(keys)}
        facts = {row.id: to_fact(row) for row in rows.values() if row.state in STANDING and _key(row) in keys}
        facts |= found or {}
        ids = {fact.id: memory_id for memory_id, fact in facts.items()}  # another one where a value was corrected
        for fact in merged(facts.values()):
            memory_id = ids[fact.id]
            self._write(memory_id, fact, rows.get(memory_id), ids)
        self.session.flush()
        self._make_profile()

    def _write(self, memory_id: str, fact: Fact, row: Memory | None, ids: Mapping[str, str]) -> None:
        state = _state(fact)
        links = {
            "closed_by": ids[fact.closed_by] if fact.closed_by else None,
            "repeats": ids[fact.repeats] if fact.repeats else None,
        }
        if row is not None and row.corrected_at is not None:
            told: dict[str, object] = dict(links)  # a person's words are not the extractor's to change
        else:
            told = {**_told(fact), **links}
        if row is None:
            row = Memory(
                project_id=self.session.scope.project_id, user_id=self.user.id, id=memory_id, learned_at=self.now
            )
            row.state, row.extractor, row.version = state.value, self.by, self._next_version()
            self.session.add(row)
        else:
            before = MemoryState(row.state)
            if before is state and all(getattr(row, name) == value for name, value in told.items()):
                return
            if before is MemoryState.CURRENT and state is MemoryState.HISTORY:
                self._note(row, "closed")
            elif before is MemoryState.HISTORY and state is MemoryState.CURRENT:
                self._note(row, "reopened")
            row.state, row.version = moved(before, state).value, self._next_version()
        for name, value in told.items():
            setattr(row, name, value)

    def _empty(self, row: Memory, state: MemoryState) -> None:
        """Let nothing that was said stay in a memory, nor in what is noted of it."""
        self._emptied.add(_key(row))
        row.state, row.version = moved(MemoryState(row.state), state).value, self._next_version()
        row.closed_by = row.repeats = row.holds_from = row.holds_until = row.corrected_at = None
        for name, value in _NO_WORDS.items():
            setattr(row, name, value)
        self.session.flush()
        mine = MemoryChange.user_id == self.user.id, MemoryChange.memory_id == row.id
        self.session.execute(
            update(MemoryChange).where(*mine).values(text="", value=""),
            execution_options={"synchronize_session": False},
        )

    def _note(self, row: Memory, action: str) -> None:
        """Note what happens to a memory, and how it was until now."""
        if row.id not in self._changes:
            mine = select(func.max(MemoryChange.number)).where(
                MemoryChange.user_id == self.user.id, MemoryChange.memory_id == row.id
            )
            self._changes[row.id] = self.session.scalar(mine) or 0
        self._changes[row.id] += 1
        self.session.add(
            MemoryChange(
                project_id=self.session.scope.project_id,
                user_id=self.user.id,
                memory_id=row.id,
                number=self._changes[row.id],
                at=self.now,
                action=action,
                by=self.by,
                text=row.text,
                value=row.value,
            )
        )

    def _next_version(self) -> int:
        if self._version is None:
            self.user.memory_version += 1
            self._version = self.user.memory_version
        return self._version

    def _rows(self, *conditions: object) -> list[Memory]:
        return list(self.session.scalars(select(Memory).where(Memory.user_id == self.user.id, *conditions)))  # type: ignore[arg-type]

    def _of_keys(self, keys: Collection[Key]) -> dict[str, Memory]:
        found = dict[str, Memory]()
        for part in _parts(keys):
            of_part = tuple_(Memory.subject, Memory.attribute).in_(part)
            found |= {row.id: row for row in self._rows(of_part, Memory.state.in_(STANDING))}
        return found

    def _of_bars(self, bars: Collection[str]) -> list[Memory]:
        return [row for part in _parts(bars) for row in self._rows(Memory.barred.in_(part))]

    def _make_profile(self) -> None:
        current = select(*_OF_FACTS).where(Memory.user_id == self.user.id, Memory.state == MemoryState.CURRENT)
        rows = self.session.execute(current.order_by(Memory.said_at, Memory.number, Memory.id))
        made = summarise(map(to_fact, rows), self.now.date())
        profile = self.session.get(CallerProfile, (self.session.scope.project_id, self.user.id))
        if profile is None:
            if made == ProfileSummary():
                return
            profile = CallerProfile(project_id=self.session.scope.project_id, user_id=self.user.id)
            self.session.add(profile)
        elif (profile.summary, profile.attributes) == (made.summary, made.attributes):
            return
        self.user.profile_version += 1
        profile.summary, profile.attributes, profile.updated_at = made.summary, dict(made.attributes), self.now


def to_fact(row: Memory | Row[Any]) -> Fact:
    """A memory that says something, as consolidation speaks of it. What was corrected counts from then on."""
    return Fact(
        kind=FactKind(row.kind),
        text=row.text,
        subject=row.subject,
        attribute=row.attribute,
        value=row.value,
        # Another statement than the extractor's of the same event, which may say the same.
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


def _told(fact: Fact) -> dict[str, object]:
    """The columns of a fact, but for its links to others."""
    return {**{name: getattr(fact, name) for name in _TOLD}, "kind": fact.kind.value}


def _key(each: Fact | Memory) -> Key:
    return each.subject, each.attribute


def _state(fact: Fact) -> MemoryState:
    if fact.repeats is not None:
        return MemoryState.REPEAT
    return MemoryState.CURRENT if fact.closed_by is None else MemoryState.HISTORY


def _barred(each: Fact | Memory) -> str:
    """What a deleted memory is known by when it is said again: a hash of what it said."""
    parts = (each.subject, each.attribute, each.value.casefold())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _parts(values: Collection[T]) -> Iterator[list[T]]:
    listed = list(values)
    return (listed[start : start + _AT_ONCE] for start in range(0, len(listed), _AT_ONCE))
