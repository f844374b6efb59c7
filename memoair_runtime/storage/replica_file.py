"""What the cloud told of a caller, as it lies beside his logs: the events of other machines, and facts.

``cloud.jsonl`` holds one JSON object a line:

    {"copy": "9f2c...", "cloud": "a41b..."}    the first: which copy this is, and of which cloud
    {"event": {...}} or {"fact": {...}}        what was told
    {"version": 12, "crc": 2914}               ends a page: all until here is what the cloud had at this version

A page counts once its last line is there and its checksum fits; what stands behind the last such line is cut away. All
of it can be asked for again, so nothing waits for the disk. A snapshot begins another copy. A page that takes facts
away, or another's place, makes the file anew: no file shall hold what the cloud holds no more.
"""

import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

import attrs
import msgspec

from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.events import Event, is_sound


class ReplicaFact(msgspec.Struct, frozen=True, rename="camel"):
    """Something that is known about the caller, in a plain sentence, with where it comes from."""

    id: str
    kind: str
    text: str
    said_at: Annotated[datetime, msgspec.Meta(tz=True)]
    subject: str = ""
    attribute: str = ""
    value: str | None = None
    event_id: str | None = None
    session_id: str | None = None
    holds_from: str | None = None
    holds_until: str | None = None


class ReplicaPage(msgspec.Struct, frozen=True):
    """What the cloud tells at once; complete up to ``version``. ``removed`` are ids of facts. Its events are sound."""

    version: int
    events: Sequence[Event] = ()
    facts: Sequence[ReplicaFact] = ()
    removed: Sequence[str] = ()


@attrs.frozen
class ReplicaChange:
    """What is new in a copy: events, facts, the ids of facts that stand no longer, and those of events that don't."""

    events: tuple[Event, ...] = attrs.field(default=(), converter=tuple[Event, ...])
    facts: tuple[ReplicaFact, ...] = attrs.field(default=(), converter=tuple[ReplicaFact, ...])
    removed: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])
    dropped: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])


NO_CHANGE = ReplicaChange()


class _ReplicaLine(msgspec.Struct, frozen=True, omit_defaults=True):
    copy: str | None = None
    cloud: str | None = None
    event: Event | None = None
    fact: ReplicaFact | None = None
    version: int | None = None
    crc: int = 0


@attrs.frozen
class _StoredReplica:
    """A page as it lies in the file, up to ``end``."""

    end: int
    version: int
    events: list[Event]
    facts: list[ReplicaFact]
    last: bytes  # its last line


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_ReplicaLine).decode
_FLAGS = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def fingerprint(fact: ReplicaFact) -> int:
    """A checksum of all that a fact says."""
    return zlib.crc32(_encode(fact))


class ReplicaFile:
    """The file of one caller, as one process sees it. Who writes to it holds the role for that. Not thread-safe.

    Of another cloud's copy nothing is read; ``cloud`` names ours, and without one any will do.
    """

    def __init__(self, path: Path, cloud: str | None) -> None:
        self._path = path
        self._cloud = cloud
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.name: str | None = None  # None: there is no copy
        self.version: int | None = None
        self.events = 0  # how many stand in the file
        self.facts: dict[str, ReplicaFact] = {}
        self._file = 0  # its number on the disk
        self._end = 0  # of the last whole page
        self._last = b""  # the line before it
        self._head_end = 0

    def catch_up(self) -> ReplicaChange:
        """Read what other processes wrote since the last look, or everything; raises OSError."""
        content, number = b"", 0
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            number = os.fstat(file.fileno()).st_ino
            if number == self._file and self.name is not None:
                file.seek(self._end - len(self._last))
                content = file.read()
                # The number alone proves nothing: a file that was replaced twice may have that of the first one again.
                if content.startswith(self._last):
                    return self._read_on(content[len(self._last) :], dict(self.facts))
                file.seek(0)
            content = file.read()
        before = self.facts
        self._begin_anew()
        self._file = number
        self._read_head(content)
        return self._read_on(content[self._head_end :], before)

    def append(self, page: ReplicaPage) -> ReplicaChange:
        """Keep a page that goes on from the version that is held; raises OSError where the disk refuses."""
        before = dict(self.facts)
        is_superseding = any(fact_id in before for fact_id in page.removed) or any(
            fact.id in before and before[fact.id] != fact for fact in page.facts
        )
        events = list(page.events)
        facts = [fact for fact in page.facts if before.get(fact.id) != fact]
        if self.name is None or is_superseding:
            self._rewrite(page, events)
        else:
            lines = _lines(events, facts)
            self._write(lines, _version_line(page.version, lines))
            self.events += len(events)
        self._learn(page.version, facts, page.removed)
        return ReplicaChange(events, facts, [each for each in page.removed if each in before])

    def replace(self, page: ReplicaPage) -> ReplicaChange:
        """Keep a snapshot in place of all that was held; raises OSError where the disk refuses."""
        before, held = self.facts, {event.event_id for stored in self._stored() for event in stored.events}
        self._begin_anew()
        self.append(page)
        told = {event.event_id for event in page.events}
        return ReplicaChange(
            list(page.events),
            [fact for fact in page.facts if before.get(fact.id) != fact],
            [fact_id for fact_id in before if fact_id not in self.facts],
            [event_id for event_id in held if event_id not in told],
        )

    def _read_head(self, content: bytes) -> None:
        end = content.find(b"\n") + 1
        line = _decoded(content[:end])
        if line is not None and line.copy and self._cloud in (None, line.cloud):
            self.name = line.copy
            self._head_end = self._end = end

    def _read_on(self, content: bytes, before: Mapping[str, ReplicaFact]) -> ReplicaChange:
        events: list[Event] = []
        start = self._end
        for page in _pages(content) if self.name is not None else ():
            events += page.events
            self.events += len(page.events)
            self._learn(page.version, page.facts, ())
            self._end, self._last = start + page.end, page.last
        if self.version is None:
            self.name = None  # a head alone is as good as nothing
        facts = [fact for fact in self.facts.values() if before.get(fact.id) != fact]
        return ReplicaChange(events, facts, [fact_id for fact_id in before if fact_id not in self.facts])

    def _learn(self, version: int, facts: Sequence[ReplicaFact], removed: Sequence[str]) -> None:
        self.version = version
        for fact_id in removed:
            self.facts.pop(fact_id, None)
        self.facts.update((fact.id, fact) for fact in facts)

    def _write(self, lines: bytes, last: bytes) -> None:
        content = lines + last
        descriptor = os.open(self._path, _FLAGS)
        try:
            os.ftruncate(descriptor, self._end)  # half a page may stand there
            written = os.write(descriptor, content)
            if written != len(content):
                os.ftruncate(descriptor, self._end)
                raise OSError(f"{len(content) - written} bytes were not taken")
        finally:
            os.close(descriptor)
        self._end, self._last = self._end + len(content), last

    def _rewrite(self, page: ReplicaPage, events: list[Event]) -> None:
        """Make the file of what stands after a page."""
        standing = {fact_id: fact for fact_id, fact in self.facts.items() if fact_id not in page.removed}
        standing.update((fact.id, fact) for fact in page.facts)
        kept = [event for stored in self._stored() for event in stored.events] + events
        name = self.name or uuid.uuid4().hex
        head = _encode(_ReplicaLine(copy=name, cloud=self._cloud)) + b"\n"
        lines = _lines(kept, list(standing.values()))
        last = _version_line(page.version, lines)
        content = head + lines + last
        write_file(self._path, content, durable=False)
        self.name, self.events = name, len(kept)
        self._file = self._path.stat().st_ino
        self._head_end, self._end, self._last = len(head), len(content), last

    def _stored(self) -> Iterator[_StoredReplica]:
        if self.name is None:
            return
        with suppress(FileNotFoundError):
            with self._path.open("rb") as file:
                content = file.read(self._end)[self._head_end :]
            yield from _pages(content)


def _pages(content: bytes) -> Iterator[_StoredReplica]:
    """The whole pages at the beginning of a content."""
    begin = at = 0
    events: list[Event] = []
    facts: list[ReplicaFact] = []
    while (end := content.find(b"\n", at) + 1) > 0:
        line = _decoded(content[at:end])
        if line is None:
            return
        if line.version is not None:
            if zlib.crc32(content[begin:at]) != line.crc:
                return
            yield _StoredReplica(end, line.version, events, facts, content[at:end])
            events, facts, begin = [], [], end
        elif line.event is not None:
            events.append(line.event)
        elif line.fact is not None:
            facts.append(line.fact)
        at = end


def _lines(events: Sequence[Event], facts: Sequence[ReplicaFact]) -> bytes:
    lines = [_encode({"event": event}) for event in events] + [_encode({"fact": fact}) for fact in facts]
    return b"".join(line + b"\n" for line in lines)


def _version_line(version: int, lines: bytes) -> bytes:
    return _encode(_ReplicaLine(version=version, crc=zlib.crc32(lines))) + b"\n"


def _decoded(line: bytes) -> _ReplicaLine | None:
    try:
        decoded = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return decoded if decoded.event is None or is_sound(decoded.event) else None
