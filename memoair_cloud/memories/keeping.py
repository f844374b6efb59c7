"""From facts to rows and back: which memories stand is worked out by merging, and what has changed gets a version."""

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime

import attrs
from sqlalchemy import func, select, tuple_

from memoair_cloud.calls.callers import forgotten
from memoair_cloud.consolidation import Fact, Kind, Profile, merged, summarise
from memoair_cloud.database.models import CallerProfile, EndUser, Memory, MemoryChange
from memoair_cloud.memories.states import STANDING, MemoryState, moved
from memoair_cloud.tenancy.scoped import ScopedSession

_NO_WORDS = {"text": "", "subject": "", "attribute": "", "value": "", "corrects": None}
# So many keys or ids in one statement: SQLite takes 32,766 variables, and every key has two of them.
_AT_ONCE = 5_000

Key = tuple[str, str]  # subject and attribute: facts of one key speak of the same thing


@attrs.define
class MemoryKeeper:
    """The memories of one caller, within a transaction that has locked his row.

    ``by`` tells who changes them: an extractor, or "api".
    """

    session: ScopedSession
    user: EndUser
    now: datetime
    by: str
    _version: int | None = attrs.field(init=False, default=None)  # of this transaction's changes, once there is one
    _changes: dict[str, int] = attrs.field(init=False, factory=dict)  # how many each memory has, as far as asked for

    def relearn(self, session_id: str, facts: Iterable[Fact]) -> None:
        """What was found in a call takes the place of what was found in it before.

        What somebody has deleted does not come back, and what somebody has corrected stays as he said.
        """
        before = {row.id: row for row in self._rows(Memory.session_id == session_id)}
        kept = {row.id for row in before.values() if row.corrected_at or row.state == MemoryState.DELETED}
        found = {fact.id: fact for fact in facts if fact.id not in kept}
        keys = {_key(fact) for fact in found.values()}
        keys |= {_key(row) for row in before.values() if row.state in STANDING}
        for row in before.values():
            if row.id not in found and row.id not in kept and row.state in STANDING:
                self._empty(row, MemoryState.WITHDRAWN)
        self._settle(keys, found, before)

    def correct(self, memory: Memory, text: str, value: str, days: Mapping[str, date | None]) -> None:
        """Say it as somebody says that it is; ``days`` are ``holds_from`` and ``holds_until``, where they change."""
        self._note(memory, "corrected")
        memory.text, memory.value, memory.corrected_at = text, value, self.now
        for name, day in days.items():
            setattr(memory, name, day)
        memory.version = self._next_version()
        self.session.flush()
        self._settle({_key(memory)})

    def delete(self, memory: Memory) -> None:
        """Leave nothing of it that was said; what it had closed may hold again."""
        key = _key(memory)
        self._note(memory, "deleted")
        self._empty(memory, MemoryState.DELETED)
        self.session.flush()
        for change in self.session.scalars(
            select(MemoryChange).where(MemoryChange.user_id == self.user.id, MemoryChange.memory_id == memory.id)
        ):
            change.text = change.value = ""
        self._settle({key})

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
        row.state, row.version = moved(MemoryState(row.state), state).value, self._next_version()
        row.closed_by = row.repeats = row.holds_from = row.holds_until = None
        for name, value in _NO_WORDS.items():
            setattr(row, name, value)

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
        wanted, found = list(keys), dict[str, Memory]()
        for start in range(0, len(wanted), _AT_ONCE):
            part = tuple_(Memory.subject, Memory.attribute).in_(wanted[start : start + _AT_ONCE])
            found |= {row.id: row for row in self._rows(part, Memory.state.in_(STANDING))}
        return found

    def _make_profile(self) -> None:
        current = sorted(self._rows(Memory.state == MemoryState.CURRENT), key=lambda row: (row.said_at, row.number))
        profile = self.session.get(CallerProfile, (self.session.scope.project_id, self.user.id))
        if profile is None:
            before = forgotten(self.session, self.user.id)
            known = Profile(version=before.profile_version if before else 0)
        else:
            known = Profile(profile.summary, _as_known(profile.attributes), profile.version)
        made = summarise(map(to_fact, current), known)
        if made.version == known.version:
            return
        if profile is None:
            profile = CallerProfile(project_id=self.session.scope.project_id, user_id=self.user.id)
            self.session.add(profile)
        profile.version, profile.summary = made.version, made.summary
        profile.attributes, profile.updated_at = dict(made.attributes), self.now


def to_fact(row: Memory) -> Fact:
    """A memory that says something, as consolidation speaks of it. What was corrected counts from then on."""
    return Fact(
        kind=Kind(row.kind),
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
        closed_by=row.closed_by,
        repeats=row.repeats,
    )


def _told(fact: Fact) -> dict[str, object]:
    names = [field.name for field in attrs.fields(Fact)]
    told = {name: getattr(fact, name) for name in names if name not in ("closed_by", "repeats")}
    return {**told, "kind": fact.kind.value}


def _key(each: Fact | Memory) -> Key:
    return each.subject, each.attribute


def _state(fact: Fact) -> MemoryState:
    if fact.repeats is not None:
        return MemoryState.REPEAT
    return MemoryState.CURRENT if fact.closed_by is None else MemoryState.HISTORY


def _as_known(attributes: Mapping[str, object]) -> dict[str, str | tuple[str, ...]]:
    """Attributes as `summarise` makes them: JSON knows no tuples."""
    return {name: tuple(value) if isinstance(value, list) else str(value) for name, value in attributes.items()}
