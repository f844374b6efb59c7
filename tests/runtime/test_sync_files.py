"""The files of sync against every kind of crash: a copy that was cut, an outbox whose cursors and logs go apart."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.calls import LONG_AGO, user_folder

from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.storage.events import Event, EventType, decode_line, encode_line
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.storage.replica_file import NO_CHANGE, ReplicaFact, ReplicaFile, ReplicaPage
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.outbox import Outbox
from memoair_runtime.sync.push import Pusher
from memoair_runtime.sync.responses import EventRejectionRecord, IngestReceipt

CLOUD = "a cloud"


def event(number: int, session_id: str = "elsewhere", said: str = "") -> Event:
    payload = {"turnId": f"t{number}", "userText": said or f"Parcel {number}.", "assistantText": ""}
    at = LONG_AGO + timedelta(minutes=number)
    return Event(f"{session_id}-e{number:030}", EventType.TURN, session_id, number, at, payload)


def fact(number: int, text: str) -> ReplicaFact:
    return ReplicaFact(f"f{number}", "preference", text, LONG_AGO)


# The copy

numbers = st.integers(0, 5)
pages = st.lists(
    st.tuples(
        st.integers(0, 3),  # events
        st.dictionaries(numbers, st.text(max_size=5), max_size=3),  # facts
        st.lists(numbers, max_size=2),  # removed
        st.booleans(),  # a snapshot
    ),
    min_size=1,
    max_size=6,
)
Content = tuple[int | None, tuple[str, ...], Mapping[str, str]]


def content_of(copy: ReplicaFile, events: list[str]) -> Content:
    return copy.version, tuple(events), {fact_id: each.text for fact_id, each in copy.facts.items()}


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(pages, st.data())
def test_a_copy_that_is_cut_anywhere_is_some_complete_version_and_goes_on_from_there(
    told: list[Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cloud.jsonl"
        copy, events, made = ReplicaFile(path, CLOUD), list[str](), 0
        versions: dict[bytes, Content] = {}
        for version, (count, facts, removed, is_snapshot) in enumerate(told, 1):
            new = [event(made + each) for each in range(count)]
            made += count
            page = ReplicaPage(
                version,
                new,
                [fact(*each) for each in facts.items()],
                [f"f{each}" for each in removed if each not in facts],
            )
            is_snapshot |= version == 1
            before = dict(copy.facts)
            change = copy.replace(page) if is_snapshot else copy.append(page)
            events = ([] if is_snapshot else events) + [each.event_id for each in new]
            after = {**before, **{each.id: each for each in change.facts}}
            assert {each: after[each] for each in after if each not in change.removed_fact_ids} == copy.facts, (
                "it says what is new"
            )
            versions[path.read_bytes()] = content_of(copy, events)
        whole = path.read_bytes()

        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut] + data.draw(st.binary(max_size=8)))
        again = ReplicaFile(path, CLOUD)
        change = again.refresh()
        found = content_of(again, [each.event_id for each in change.events])
        possible = [content for before, content in versions.items() if whole.startswith(before) and len(before) <= cut]
        assert found == (possible[-1] if possible else (None, (), {}))
        assert again.event_count == len(change.events)
        assert again.refresh() == NO_CHANGE or cut != len(whole)

        page = ReplicaPage(99, [event(1_000)], [fact(99, "Goes on.")])
        again.append(page) if again.version is not None else again.replace(page)
        last = ReplicaFile(path, CLOUD)
        assert [each.event_id for each in last.refresh().events] == [*found[1], event(1_000).event_id]
        assert (last.version, last.facts) == (99, again.facts)


def test_a_copy_that_another_process_writes_is_read_on_or_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "cloud.jsonl"
    ours, theirs = ReplicaFile(path, CLOUD), ReplicaFile(path, CLOUD)
    theirs.replace(ReplicaPage(1, [event(1)], [fact(1, "One."), fact(2, "Two.")]))
    assert len(ours.refresh().events) == 1
    theirs.append(ReplicaPage(2, [event(2)], [fact(3, "Three.")]))
    change = ours.refresh()
    assert [each.event_id for each in change.events] == [event(2).event_id]
    assert [each.id for each in change.facts] == ["f3"]
    theirs.append(ReplicaPage(3, [], [fact(1, "Another.")], ["f2"]))
    change = ours.refresh()
    assert (change.removed_fact_ids, [each.text for each in change.facts]) == (("f2",), ["Another."])
    assert b"Two." not in path.read_bytes()
    assert b"One." not in path.read_bytes()
    path.unlink()
    assert set(ours.refresh().removed_fact_ids) == {"f1", "f3"}
    assert ours.version is None


def test_a_copy_in_place_of_the_one_that_was_read_is_read_anew_also_under_its_number(tmp_path: Path) -> None:
    path = tmp_path / "cloud.jsonl"
    ours, theirs = ReplicaFile(path, CLOUD), ReplicaFile(tmp_path / "other.jsonl", CLOUD)
    for version, said in enumerate(["One.", "Another one.", "Two."], 1):  # longer, and as long
        theirs.replace(ReplicaPage(version, [event(version)], [fact(1, said)]))
        path.write_bytes((tmp_path / "other.jsonl").read_bytes())  # as a system does that gives numbers again at once
        change = ours.refresh()
        assert (ours.version, ours.facts["f1"].text) == (version, said)
        assert [each.event_id for each in change.events] == [event(version).event_id]
    assert ours.refresh() == NO_CHANGE


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", b'{"copy": "x", "cloud": "another"}\n{"version": 1}\n', b"\xff"]
)
def test_what_is_no_copy_of_ours_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cloud.jsonl"
    path.write_bytes(content)
    copy = ReplicaFile(path, CLOUD)
    assert copy.refresh() == NO_CHANGE
    assert copy.version is None
    copy.replace(ReplicaPage(1, [event(1)]))
    assert ReplicaFile(path, CLOUD).refresh().events[0].event_id == event(1).event_id
    assert ReplicaFile(path, None).refresh().events, "without a cloud, what any has told is used"


# The outbox


class _Cloud:
    """Keeps what it is sent, and tells of as much of it as it is made to."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.refused: set[str] = set()
        self.times: dict[str, int] = {}
        self.most_told = 1_000
        self.most_taken = 1_000
        self.fails = False
        self.loses_answer = False

    def push_events(self, events: list[bytes], deadline: float) -> IngestReceipt:
        if self.fails:
            raise CloudError(FailureKind.TRANSIENT, "it fails")
        if len(events) > self.most_taken:
            raise CloudError(FailureKind.INVALID, "it is too large", status=413)
        receipt = IngestReceipt([], [], [])
        for content in events:
            read = decode_line(content)
            assert read is not None, "no damaged line is sent"
            self.times[read.event_id] = self.times.get(read.event_id, 0) + 1
            if read.payload["userText"] == "refuse me":
                self.refused.add(read.event_id)
                receipt.rejected.append(EventRejectionRecord(read.event_id, "cloud.invalid"))
            elif read.event_id in self.kept:
                receipt.duplicate.append(read.event_id)
            else:
                self.kept[read.event_id] = content
                receipt.accepted.append(read.event_id)
        if self.loses_answer:
            raise CloudError(FailureKind.TRANSIENT, "the answer is lost")
        told = self.most_told
        return IngestReceipt(receipt.accepted[:told], receipt.duplicate[:told], receipt.rejected[:told])


class OutboxAgainstLogs(RuleBasedStateMachine):
    """Any sequence of lines, torn and damaged ones, partial answers, lost cursors and restarts sends every event at
    least once, and the cloud keeps each once.
    """

    @initialize()
    def begin(self) -> None:
        self.holder = tempfile.TemporaryDirectory()
        self.folder = user_folder(Path(self.holder.name))
        self.cloud = _Cloud()
        self.logged: dict[str, list[str]] = {}  # by session, the events whose lines are whole
        self.made = 0
        self.restart()

    def teardown(self) -> None:
        if not hasattr(self, "holder"):
            return
        with self.holder:
            self.be_good()
            self.outbox.scan(all_sessions=True)
            self.push()
            everything = {event_id for events in self.logged.values() for event_id in events}
            assert everything <= self.cloud.kept.keys() | self.cloud.refused
            assert self.outbox.count == 0

    @rule()
    def restart(self) -> None:
        self.outbox = Outbox(self.folder, CLOUD)
        refusals = RejectedEvents(self.folder.rejected_events)
        self.pusher = Pusher(self.folder, self.outbox, refusals, self.cloud, RuntimeMetrics())  # type: ignore[arg-type]
        self.outbox.scan(all_sessions=True)

    @rule(session=st.sampled_from("abc"), said=st.sampled_from(["", "", "refuse me"]), is_noted=st.booleans())
    def log(self, session: str, said: str, is_noted: bool) -> None:
        self.made += 1
        new = event(self.made, session, said)
        log = self.folder.create_session(session).log
        content = log.read_bytes() if log.exists() else b""
        # Who writes a log cuts a torn line away first.
        log.write_bytes(content[: content.rfind(b"\n") + 1] + encode_line(new))
        self.logged.setdefault(session, []).append(new.event_id)
        if is_noted:
            self.outbox.record_logged([new])

    @precondition(lambda self: self.logged)
    @rule(data=st.data(), content=st.sampled_from([b'{"eventId": "torn', b"nonsense\n", b"\n", b'{"eventId": "x"}\n']))
    def damage(self, data: st.DataObject, content: bytes) -> None:
        session = data.draw(st.sampled_from(sorted(self.logged)))
        with self.folder.session(session).log.open("ab") as file:
            file.write(content)

    @precondition(lambda self: self.logged)
    @rule(data=st.data())
    def replace_log(self, data: st.DataObject) -> None:
        """As after the caller was forgotten: what was sent stays in the cloud, and the log begins anew."""
        session = data.draw(st.sampled_from(sorted(self.logged)))
        self.folder.session(session).log.unlink()
        del self.logged[session]

    @rule(content=st.sampled_from([b"", b"{", b'{"cloud": "another", "sessions": {"a": [7, 7]}}']))
    def lose_cursors(self, content: bytes) -> None:
        if self.folder.path.exists():
            self.folder.outbox.write_bytes(content)

    @rule(told=st.integers(0, 3), taken=st.integers(1, 4), fails=st.booleans(), loses=st.booleans())
    def be_difficult(self, told: int, taken: int, fails: bool, loses: bool) -> None:
        self.cloud.most_told, self.cloud.most_taken = told, taken
        self.cloud.fails, self.cloud.loses_answer = fails, loses

    @rule()
    def be_good(self) -> None:
        self.cloud.most_told = self.cloud.most_taken = 1_000
        self.cloud.fails = self.cloud.loses_answer = False

    @rule()
    def push(self) -> None:
        with suppress(CloudError):
            assert self.pusher.push(float("inf"))

    @rule()
    def look(self) -> None:
        self.outbox.scan(all_sessions=True)


TestOutboxAgainstLogs = OutboxAgainstLogs.TestCase
TestOutboxAgainstLogs.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, database=None
)
