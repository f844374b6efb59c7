"""Files of the sync after any crash: a replica that was cut, an outbox whose cursors and logs disagree."""

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

from memoair_protocol.enums import EventType
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.storage.events import Event, decode_line, encode_line
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.storage.replica_file import ReplicaChange, ReplicaFact, ReplicaFile, ReplicaPage
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.outbox import Outbox
from memoair_runtime.sync.push import Pusher
from memoair_runtime.sync.responses import EventRejectionRecord, IngestReceipt

CLOUD = "a cloud"


def make_event(number: int, session_id: str = "elsewhere", text: str = "") -> Event:
    payload = {"turnId": f"t{number}", "userText": text or f"Parcel {number}.", "assistantText": ""}
    at = LONG_AGO + timedelta(minutes=number)
    return Event(f"{session_id}-e{number:030}", EventType.TURN, session_id, number, at, payload, CLOUD)


def make_fact(number: int, text: str) -> ReplicaFact:
    return ReplicaFact(f"f{number}", "preference", text, LONG_AGO)


# The replica

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


def summarize(replica: ReplicaFile, event_ids: list[str]) -> Content:
    return replica.version, tuple(event_ids), {fact_id: fact.text for fact_id, fact in replica.facts.items()}


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(pages, st.data())
def test_a_replica_that_is_cut_anywhere_has_its_last_complete_version_and_continues_from_there(
    generated: list[Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cloud.jsonl"
        replica, event_ids, event_count = ReplicaFile(path, CLOUD), list[str](), 0
        versions: dict[bytes, Content] = {}
        for version, (count, facts, removed, is_snapshot) in enumerate(generated, 1):
            new_events = [make_event(event_count + number) for number in range(count)]
            event_count += count
            page = ReplicaPage(
                version,
                new_events,
                [make_fact(*fact) for fact in facts.items()],
                [f"f{number}" for number in removed if number not in facts],
            )
            is_snapshot |= version == 1
            before = dict(replica.facts)
            change = replica.replace(page) if is_snapshot else replica.append(page)
            event_ids = ([] if is_snapshot else event_ids) + [event.event_id for event in new_events]
            after = {**before, **{fact.id: fact for fact in change.facts}}
            assert {id_: after[id_] for id_ in after if id_ not in change.removed_fact_ids} == replica.facts, (
                "the change is complete"
            )
            versions[path.read_bytes()] = summarize(replica, event_ids)
        whole = path.read_bytes()

        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut] + data.draw(st.binary(max_size=8)))
        again = ReplicaFile(path, CLOUD)
        change = again.refresh()
        found = summarize(again, [event.event_id for event in change.events])
        possible = [content for before, content in versions.items() if whole.startswith(before) and len(before) <= cut]
        assert found == (possible[-1] if possible else (None, (), {}))
        assert again.event_count == len(change.events)
        assert again.refresh() == ReplicaChange() or cut != len(whole)

        page = ReplicaPage(99, [make_event(1_000)], [make_fact(99, "Goes on.")])
        again.append(page) if again.version is not None else again.replace(page)
        last = ReplicaFile(path, CLOUD)
        assert [event.event_id for event in last.refresh().events] == [*found[1], make_event(1_000).event_id]
        assert (last.version, last.facts) == (99, again.facts)


def test_a_replica_that_another_process_writes_is_read_from_where_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "cloud.jsonl"
    ours, theirs = ReplicaFile(path, CLOUD), ReplicaFile(path, CLOUD)
    theirs.replace(ReplicaPage(1, [make_event(1)], [make_fact(1, "One."), make_fact(2, "Two.")]))
    assert len(ours.refresh().events) == 1
    theirs.append(ReplicaPage(2, [make_event(2)], [make_fact(3, "Three.")]))
    change = ours.refresh()
    assert [event.event_id for event in change.events] == [make_event(2).event_id]
    assert [fact.id for fact in change.facts] == ["f3"]
    theirs.append(ReplicaPage(3, [], [make_fact(1, "Another.")], ["f2"]))
    change = ours.refresh()
    assert (change.removed_fact_ids, [fact.text for fact in change.facts]) == (("f2",), ["Another."])
    assert b"Two." not in path.read_bytes()
    assert b"One." not in path.read_bytes()
    path.unlink()
    assert set(ours.refresh().removed_fact_ids) == {"f1", "f3"}
    assert ours.version is None


def test_a_replaced_replica_is_read_from_its_beginning_even_under_the_same_inode(tmp_path: Path) -> None:
    path = tmp_path / "cloud.jsonl"
    ours, theirs = ReplicaFile(path, CLOUD), ReplicaFile(tmp_path / "other.jsonl", CLOUD)
    for version, text in enumerate(["One.", "Another one.", "Two."], 1):  # longer, and of the same length
        theirs.replace(ReplicaPage(version, [make_event(version)], [make_fact(1, text)]))
        path.write_bytes(
            (tmp_path / "other.jsonl").read_bytes()
        )  # keeps the inode, as a file system that reuses inodes at once
        change = ours.refresh()
        assert (ours.version, ours.facts["f1"].text) == (version, text)
        assert [event.event_id for event in change.events] == [make_event(version).event_id]
    assert ours.refresh() == ReplicaChange()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", b'{"copy": "x", "cloud": "another"}\n{"version": 1}\n', b"\xff"]
)
def test_a_file_without_a_valid_replica_of_this_cloud_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cloud.jsonl"
    path.write_bytes(content)
    replica = ReplicaFile(path, CLOUD)
    assert replica.refresh() == ReplicaChange()
    assert replica.version is None
    replica.replace(ReplicaPage(1, [make_event(1)]))
    assert ReplicaFile(path, CLOUD).refresh().events[0].event_id == make_event(1).event_id
    assert ReplicaFile(path, None).refresh().events, "without a cloud, the replica of any cloud is used"


@pytest.mark.parametrize("damage", ["a changed word", "a line of another page", "a missing line"])
def test_a_page_of_which_a_part_is_old_does_not_count(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "cloud.jsonl"
    writer = ReplicaFile(path, CLOUD)
    writer.append(ReplicaPage(1, [make_event(1)]))
    writer.append(ReplicaPage(2, [make_event(2), make_event(3, text="The boots are red.")]))
    *start, old, changed, last = path.read_bytes().splitlines(keepends=True)
    damaged = {
        "a changed word": [old, changed.replace(b"red", b"tan")],
        "a line of another page": [old, start[1]],
        "a missing line": [changed],
    }
    path.write_bytes(b"".join([*start, *damaged[damage], last]))  # the last line of the page is there
    replica = ReplicaFile(path, CLOUD)
    assert [event.event_id for event in replica.refresh().events] == [make_event(1).event_id]
    assert replica.version == 1, "the page is pulled again"


# The outbox


class _FakeTransport:
    """Accepts events, and reports the outcome of only some of them if a test wants that."""

    def __init__(self) -> None:
        self.accepted: dict[str, bytes] = {}
        self.rejected_ids: set[str] = set()
        self.send_counts: dict[str, int] = {}
        self.max_reported = 1_000
        self.max_batch = 1_000
        self.is_failing = False
        self.loses_response = False

    def push_events(self, events: list[bytes], deadline: float, agent_id: str | None) -> IngestReceipt:
        if self.is_failing:
            raise CloudError(FailureKind.TRANSIENT, "failing")
        if len(events) > self.max_batch:
            raise CloudError(FailureKind.INVALID, "too large", status=413)
        receipt = IngestReceipt([], [], [])
        for content in events:
            event = decode_line(content)
            assert event is not None, "no damaged line is sent"
            self.send_counts[event.event_id] = self.send_counts.get(event.event_id, 0) + 1
            if event.payload["userText"] == "reject me":
                self.rejected_ids.add(event.event_id)
                receipt.rejected.append(EventRejectionRecord(event.event_id, "cloud.invalid"))
            elif event.event_id in self.accepted:
                receipt.duplicate.append(event.event_id)
            else:
                self.accepted[event.event_id] = content
                receipt.accepted.append(event.event_id)
        if self.loses_response:
            raise CloudError(FailureKind.TRANSIENT, "the response is lost")
        limit = self.max_reported
        return IngestReceipt(receipt.accepted[:limit], receipt.duplicate[:limit], receipt.rejected[:limit])


class OutboxMachine(RuleBasedStateMachine):
    """Every event is sent at least once and accepted once, after any sequence of operations.

    The operations: complete, damaged and torn lines, partial responses, lost cursors and restarts.
    """

    @initialize()
    def set_up(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = user_folder(Path(self.temporary.name))
        self.transport = _FakeTransport()
        self.logged: dict[str, list[str]] = {}  # by session: the events whose lines are complete
        self.event_count = 0
        self.restart()

    def teardown(self) -> None:
        if not hasattr(self, "temporary"):
            return
        with self.temporary:
            self.behave_well()
            self.outbox.scan(all_sessions=True)
            self.push()
            logged_ids = {event_id for events in self.logged.values() for event_id in events}
            assert logged_ids <= self.transport.accepted.keys() | self.transport.rejected_ids
            assert self.outbox.count == 0

    @rule()
    def restart(self) -> None:
        self.outbox = Outbox(self.folder, CLOUD)
        rejected_events = RejectedEvents(self.folder.rejected_events)
        metrics = RuntimeMetrics()
        self.pusher = Pusher(self.folder, self.outbox, rejected_events, self.transport, metrics)  # type: ignore[arg-type]
        self.outbox.scan(all_sessions=True)

    @rule(session=st.sampled_from("abc"), text=st.sampled_from(["", "", "reject me"]), is_recorded=st.booleans())
    def log(self, session: str, text: str, is_recorded: bool) -> None:
        self.event_count += 1
        event = make_event(self.event_count, session, text)
        log = self.folder.create_session(session).log
        content = log.read_bytes() if log.exists() else b""
        # A writer first cuts a torn line off.
        log.write_bytes(content[: content.rfind(b"\n") + 1] + encode_line(event))
        self.logged.setdefault(session, []).append(event.event_id)
        if is_recorded:
            self.outbox.record_logged([event])

    @precondition(lambda self: self.logged)
    @rule(data=st.data(), content=st.sampled_from([b'{"eventId": "torn', b"nonsense\n", b"\n", b'{"eventId": "x"}\n']))
    def damage(self, data: st.DataObject, content: bytes) -> None:
        session = data.draw(st.sampled_from(sorted(self.logged)))
        with self.folder.session(session).log.open("ab") as file:
            file.write(content)

    @precondition(lambda self: self.logged)
    @rule(data=st.data())
    def replace_log(self, data: st.DataObject) -> None:
        """Start the log again, as after an erasure: what was sent stays in the cloud."""
        session = data.draw(st.sampled_from(sorted(self.logged)))
        self.folder.session(session).log.unlink()
        del self.logged[session]

    @rule(content=st.sampled_from([b"", b"{", b'{"cloud": "another", "sessions": {"a": [7, 7]}}']))
    def lose_cursors(self, content: bytes) -> None:
        if self.folder.path.exists():
            self.folder.outbox.write_bytes(content)

    @rule(
        max_reported=st.integers(0, 3),
        max_batch=st.integers(1, 4),
        is_failing=st.booleans(),
        loses_response=st.booleans(),
    )
    def misbehave(self, max_reported: int, max_batch: int, is_failing: bool, loses_response: bool) -> None:
        self.transport.max_reported, self.transport.max_batch = max_reported, max_batch
        self.transport.is_failing, self.transport.loses_response = is_failing, loses_response

    @rule()
    def behave_well(self) -> None:
        self.transport.max_reported = self.transport.max_batch = 1_000
        self.transport.is_failing = self.transport.loses_response = False

    @rule()
    def push(self) -> None:
        with suppress(CloudError):
            assert self.pusher.push(float("inf"))

    @rule()
    def scan(self) -> None:
        self.outbox.scan(all_sessions=True)


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, derandomize=True, database=None)
