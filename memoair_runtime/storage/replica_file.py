"""The replica file: a user's events from other machines, and facts, as pulled from the cloud.

``cloud.jsonl`` holds one JSON object per line:

    {"copy": "9f2c...", "cloud": "a41b..."}    first line: which replica this is, and of which cloud
    {"event": {...}} or {"fact": {...}}        the data
    {"version": 12, "crc": 2914}               ends a page: all data up to here is complete at this version

A page counts once its last line is there and its checksum matches; what follows the last such line is cut off. All of
the file can be pulled again, so no write waits for the disk. A snapshot starts a new replica. A page that removes or
replaces facts rewrites the file: it must not hold what the cloud no longer holds.
"""

import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import attrs
import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.private_files import open_private_file, open_private_reader
from memoair_runtime.storage.events import Event, is_valid
from memoair_runtime.storage.state_file import Timestamp, Version


class ReplicaFact(msgspec.Struct, frozen=True, rename="camel"):
    """A statement about the user, with its origin. The field names in camel case are the keys on disk and on the wire.

    Attributes:
        id: The fact's id.
        kind: Its kind, such as ``identity`` or ``preference``.
        text: The statement, a plain sentence.
        said_at: When it was said.
        subject: The person or thing that it is about.
        attribute: What it states about the subject.
        value: The value of the attribute.
        event_id: The turn that it was learned from.
        session_id: The session of that turn.
        holds_from: Date from which it holds, if known.
        holds_until: Date until which it holds, if known.
    """

    id: str
    kind: str
    text: str
    said_at: Timestamp
    subject: str = ""
    attribute: str = ""
    value: str | None = None
    event_id: str | None = None
    session_id: str | None = None
    holds_from: str | None = None
    holds_until: str | None = None


class ReplicaPage(msgspec.Struct, frozen=True):
    """Data that the cloud sends at once.

    Attributes:
        version: With this page, the data is complete up to this version.
        events: Events; all of them are valid, see `memoair_runtime.storage.events.is_valid`.
        facts: New and changed facts.
        removed_fact_ids: Ids of facts that no longer hold.
    """

    version: int
    events: Sequence[Event] = ()
    facts: Sequence[ReplicaFact] = ()
    removed_fact_ids: Sequence[str] = ()


@attrs.frozen
class ReplicaChange:
    """What has changed in a replica.

    Attributes:
        events: New events.
        facts: New and changed facts.
        removed_fact_ids: Ids of facts that no longer hold.
        removed_event_ids: Ids of events that the replica no longer holds.
    """

    events: tuple[Event, ...] = attrs.field(default=(), converter=tuple[Event, ...])
    facts: tuple[ReplicaFact, ...] = attrs.field(default=(), converter=tuple[ReplicaFact, ...])
    removed_fact_ids: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])
    removed_event_ids: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])


class _ReplicaLine(msgspec.Struct, frozen=True, omit_defaults=True):
    copy: str | None = None
    cloud: str | None = None
    event: Event | None = None
    fact: ReplicaFact | None = None
    version: Version | None = None
    crc: int = 0


@attrs.frozen
class _StoredPage:
    """A page in the file. ``end_offset`` is relative to the first page."""

    end_offset: int
    version: int
    events: list[Event]
    facts: list[ReplicaFact]
    last_line: bytes


_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(_ReplicaLine).decode
_APPEND_FLAGS = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def fact_fingerprint(fact: ReplicaFact) -> int:
    """Return a checksum of all fields of a fact."""
    return zlib.crc32(_encode_json(fact))


class ReplicaFile:
    """The replica file of one user, as one process sees it. Writers hold the process lock ``pull``. Not thread-safe.

    Attributes:
        replica_id: Id of the replica; None if the file has no replica.
        version: Version up to which the replica is complete; None without a replica.
        event_count: Number of events in the file.
        facts: The facts by their ids.
    """

    def __init__(self, path: Path, cloud: str | None) -> None:
        """``cloud`` names the cloud in use: a replica of another one is ignored. With None, any is read."""
        self._path = path
        self._cloud = cloud
        self._reset()

    def _reset(self) -> None:
        self.replica_id: str | None = None
        self.version: int | None = None
        self.event_count = 0
        self.facts: dict[str, ReplicaFact] = {}
        self._inode = 0
        self._stored_cloud: str | None = None  # the cloud that the file names
        self._end_offset = 0  # of the last complete page
        self._last_line = b""  # the line that ends there
        self._header_end = 0

    def refresh(self) -> ReplicaChange:
        """Read what other processes have written since the last call; all of the file at the first call.

        Returns:
            What is new in the file.

        Raises:
            OSError: The file cannot be read.
        """
        content, inode = b"", 0
        with suppress(FileNotFoundError), open_private_reader(self._path) as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode == self._inode and self.replica_id is not None:
                file.seek(self._end_offset - len(self._last_line))
                content = file.read()
                # The inode alone proves nothing: a file that was replaced twice may have the inode of the first one.
                if content.startswith(self._last_line):
                    return self._read_pages(content[len(self._last_line) :], dict(self.facts))
                file.seek(0)
            content = file.read()
        before = self.facts
        self._reset()
        self._inode = inode
        self._read_header(content)
        return self._read_pages(content[self._header_end :], before)

    def append(self, page: ReplicaPage) -> ReplicaChange:
        """Store a page that continues at the current version.

        Args:
            page: The page.

        Returns:
            What has changed.

        Raises:
            OSError: The file cannot be written.
        """
        before = dict(self.facts)
        is_superseding = any(fact_id in before for fact_id in page.removed_fact_ids) or any(
            fact.id in before and before[fact.id] != fact for fact in page.facts
        )
        events = list(page.events)
        facts = [fact for fact in page.facts if before.get(fact.id) != fact]
        if self.replica_id is None or is_superseding:
            self._rewrite(page, events)
        else:
            lines = _encode_lines(events, facts)
            self._append_page(lines, _encode_version_line(page.version, lines))
            self.event_count += len(events)
        self._apply(page.version, facts, page.removed_fact_ids)
        return ReplicaChange(events, facts, [fact_id for fact_id in page.removed_fact_ids if fact_id in before])

    def replace(self, page: ReplicaPage) -> ReplicaChange:
        """Store a snapshot in place of the whole replica.

        Args:
            page: The first page of the snapshot.

        Returns:
            What has changed.

        Raises:
            OSError: The file cannot be written.
        """
        before = self.facts
        stored_event_ids = {event.event_id for stored in self._stored_pages() for event in stored.events}
        self._reset()
        self.append(page)
        page_event_ids = {event.event_id for event in page.events}
        return ReplicaChange(
            list(page.events),
            [fact for fact in page.facts if before.get(fact.id) != fact],
            [fact_id for fact_id in before if fact_id not in self.facts],
            [event_id for event_id in stored_event_ids if event_id not in page_event_ids],
        )

    def drop_before(self, time: datetime) -> list[Event]:
        """Drop the events from before a time; return them. Another file takes the place of this one.

        Raises:
            OSError: The file cannot be read or written.
        """
        self.refresh()
        pages = list(self._stored_pages())
        dropped = [event for page in pages for event in page.events if event.occurred_at < time]
        if dropped and self.version is not None:
            kept = [event for page in pages for event in page.events if event.occurred_at >= time]
            self._write_whole(self.version, kept, dict(self.facts), uuid.uuid4().hex)
        return dropped

    def _read_header(self, content: bytes) -> None:
        end = content.find(b"\n") + 1
        line = _decode_line(content[:end])
        if line is not None and line.copy and self._cloud in (None, line.cloud):
            self.replica_id, self._stored_cloud = line.copy, line.cloud
            self._header_end = self._end_offset = end

    def _read_pages(self, content: bytes, before: Mapping[str, ReplicaFact]) -> ReplicaChange:
        events: list[Event] = []
        start = self._end_offset
        for page in _parse_pages(content) if self.replica_id is not None else ():
            events += page.events
            self.event_count += len(page.events)
            self._apply(page.version, page.facts, ())
            self._end_offset, self._last_line = start + page.end_offset, page.last_line
        if self.version is None:
            self.replica_id = None  # a header without a page counts as no replica
        facts = [fact for fact in self.facts.values() if before.get(fact.id) != fact]
        return ReplicaChange(events, facts, [fact_id for fact_id in before if fact_id not in self.facts])

    def _apply(self, version: int, facts: Sequence[ReplicaFact], removed_fact_ids: Sequence[str]) -> None:
        self.version = version
        for fact_id in removed_fact_ids:
            self.facts.pop(fact_id, None)
        self.facts.update((fact.id, fact) for fact in facts)

    def _append_page(self, lines: bytes, last_line: bytes) -> None:
        content = lines + last_line
        fd = open_private_file(self._path, _APPEND_FLAGS)
        try:
            os.ftruncate(fd, self._end_offset)  # remove an incomplete page
            written = os.write(fd, content)
            if written != len(content):
                os.ftruncate(fd, self._end_offset)
                raise OSError(f"short write: {len(content) - written} bytes are missing")
        finally:
            os.close(fd)
        self._end_offset, self._last_line = self._end_offset + len(content), last_line

    def _rewrite(self, page: ReplicaPage, new_events: list[Event]) -> None:
        """Write a new file with everything that holds after a page."""
        facts = {fact_id: fact for fact_id, fact in self.facts.items() if fact_id not in page.removed_fact_ids}
        facts.update((fact.id, fact) for fact in page.facts)
        events = [event for stored in self._stored_pages() for event in stored.events] + new_events
        self._write_whole(page.version, events, facts, self.replica_id or uuid.uuid4().hex)

    def _write_whole(
        self, version: int, events: list[Event], facts: Mapping[str, ReplicaFact], replica_id: str
    ) -> None:
        header = _encode_json(_ReplicaLine(copy=replica_id, cloud=self._cloud or self._stored_cloud)) + b"\n"
        lines = _encode_lines(events, list(facts.values()))
        last_line = _encode_version_line(version, lines)
        content = header + lines + last_line
        write_file(self._path, content, durable=False)
        self.replica_id, self.event_count = replica_id, len(events)
        self._inode = self._path.stat().st_ino
        self._header_end, self._end_offset, self._last_line = len(header), len(content), last_line

    def _stored_pages(self) -> Iterator[_StoredPage]:
        if self.replica_id is None:
            return
        with suppress(FileNotFoundError):
            with open_private_reader(self._path) as file:
                content = file.read(self._end_offset)[self._header_end :]
            yield from _parse_pages(content)


def _parse_pages(content: bytes) -> Iterator[_StoredPage]:
    """Yield the complete pages at the beginning of some content."""
    begin = at = 0
    events: list[Event] = []
    facts: list[ReplicaFact] = []
    while (end := content.find(b"\n", at) + 1) > 0:
        line = _decode_line(content[at:end])
        if line is None:
            return
        if line.version is not None:
            if zlib.crc32(content[begin:at]) != line.crc:
                return
            yield _StoredPage(end, line.version, events, facts, content[at:end])
            events, facts, begin = [], [], end
        elif line.event is not None:
            events.append(line.event)
        elif line.fact is not None:
            facts.append(line.fact)
        at = end


def _encode_lines(events: Sequence[Event], facts: Sequence[ReplicaFact]) -> bytes:
    lines = [_encode_json({"event": event}) for event in events] + [_encode_json({"fact": fact}) for fact in facts]
    return b"".join(line + b"\n" for line in lines)


def _encode_version_line(version: int, lines: bytes) -> bytes:
    return _encode_json(_ReplicaLine(version=version, crc=zlib.crc32(lines))) + b"\n"


def _decode_line(line: bytes) -> _ReplicaLine | None:
    try:
        decoded = _decode_json(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return decoded if decoded.event is None or is_valid(decoded.event) else None
