"""Erasures and wrong clocks: what was said before one never comes back, what was said after it is kept."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import attrs
import pytest
from prometheus_client import generate_latest
from sqlalchemy import update
from support.clouds import Client, RunningCloud, running, turn
from support.devices import Device, device
from support.waiting import eventually

from memoair_cloud.calls.erased_events import ErasureOrder, EventOrder, Sender
from memoair_cloud.calls.event_parsing import IncomingEvent
from memoair_cloud.database.models import CallSession, ForgottenUser
from memoair_protocol.enums import EventType
from memoair_protocol.erasure_marks import DeviceClock, DeviceTime, ErasureMark
from memoair_runtime.storage.user_folder import UserFolder

SECRET = "xylophone"
pytestmark = pytest.mark.usefixtures("short_waits")
NewDevice = Callable[..., AbstractContextManager[Device]]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoair_cloud.calls.erased_events._MAX_TRANSIT", timedelta(0))
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 0.02)
    monkeypatch.setattr("memoair_runtime.sync.scheduler.STARTUP_DELAY_S", 0.0)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[RunningCloud]:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud:
        yield cloud


@pytest.fixture
def client(cloud: RunningCloud) -> Client:
    return cloud.tenant().with_identity(user="ada")


@pytest.fixture
def new_device(cloud: RunningCloud, client: Client, tmp_path: Path) -> NewDevice:
    """Run devices of one machine, which the cloud answers or not."""

    @contextmanager
    def make(*, is_online: bool = True, root: str = "machine") -> Iterator[Device]:
        url = cloud.url if is_online else "http://127.0.0.1:9"
        project = client.identity["project"]
        settings = {"cloud_key": str(client.key), "cloud_base_url": url, "project_id": project, "user_id": "ada"}
        with device(None, tmp_path / root, **settings) as runtime:
            if is_online:
                runtime.wait_for_first_pull()
            yield runtime

    return make


@pytest.fixture
def same_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a machine take its cloud for the same one when it is out of reach, under another address."""
    monkeypatch.setattr("memoair_runtime.settings.cloud_id_of", lambda _: "0123456789abcdef")


def shift_clock(monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], ahead: timedelta) -> None:
    """Set the clock of a machine, or of the cloud: ``packages`` are those that run on it."""

    def now() -> datetime:
        return datetime.now(timezone.utc) + ahead

    for name, module in list(sys.modules.items()):
        if name.startswith(packages) and hasattr(module, "utc_now"):
            monkeypatch.setattr(module, "utc_now", now)


set_machine = partial(shift_clock, packages=("memoair_runtime", "memoair_protocol.erasure_marks"))
set_cloud = partial(shift_clock, packages=("memoair_cloud",))


def spoken(client: Client) -> list[str]:
    sessions = client.ok("GET", f"{client.path}/sessions")["sessions"] if _is_known(client) else []
    events = [event for session in sessions for event in client.events(session["sessionId"])]
    return sorted(event["payload"]["userText"] for event in events if event["type"] == "turn")


def _is_known(client: Client) -> bool:
    return client.call("GET", client.path).status == 200


def erase(client: Client) -> None:
    client.ok("DELETE", client.path)


@pytest.mark.parametrize("ahead_h", [-1, 1, 0])
def test_a_machine_with_a_wrong_clock_keeps_what_is_said_after_an_erasure_that_it_knows(
    client: Client, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch, ahead_h: int
) -> None:
    set_machine(monkeypatch, ahead=timedelta(hours=ahead_h))
    with new_device() as runtime:
        runtime.save("t1", SECRET, session_id="one")
        assert runtime.flush()["pending"] == 0
        erase(client)
        runtime.pull()
        assert runtime.find_texts(SECRET) == []
        runtime.save("t2", "In the same call.", session_id="one")
        runtime.save("t3", "In another call.", session_id="two")
        assert runtime.flush()["pending"] == 0
        assert spoken(client) == ["In another call.", "In the same call."]
        assert runtime.find_texts("in the same call")


def test_a_caller_who_was_forgotten_here_goes_on_whatever_the_clock_of_the_cloud_said(
    client: Client, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_device() as runtime:
        runtime.save("t1", SECRET, session_id="one")
        runtime.flush()
        with monkeypatch.context() as patched:
            set_cloud(patched, ahead=timedelta(days=400))
            erase(client)
        runtime.pull()
        runtime.save("t2", "After.", session_id="one")
        assert runtime.flush()["pending"] == 0
        assert spoken(client) == ["After."]
    with new_device() as runtime:
        runtime.save("t3", "The next day.", session_id="two")
        assert runtime.flush()["pending"] == 0
    assert spoken(client) == ["After.", "The next day."]


def test_a_machine_without_marks_is_refused_once_after_the_clock_of_the_cloud_was_ahead(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        set_cloud(patched, ahead=timedelta(days=400))
        erase(client)
    now = datetime.now(timezone.utc)
    assert client.send(turn("t1", "one", occurredAt=(now - timedelta(hours=1)).isoformat()))["rejected"]
    later = (datetime.now(timezone.utc) + timedelta(seconds=30)).isoformat()
    assert client.send(turn("t2", "two", occurredAt=later))["accepted"] == ["t2"]


@pytest.mark.usefixtures("same_cloud")
@pytest.mark.parametrize("ahead_h", [-1, 0, 5])
def test_what_a_machine_logged_offline_is_ordered_by_its_age(
    client: Client, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch, ahead_h: int
) -> None:
    uptime_s = DeviceTime.now().uptime_s
    with monkeypatch.context() as patched:
        set_machine(patched, ahead=timedelta(hours=ahead_h))
        with new_device(is_online=False) as runtime:
            patched.setattr("memoair_protocol.erasure_marks._read_clock", lambda: uptime_s - 60)
            runtime.save("t1", SECRET, session_id="one")
            erase(client)
            patched.setattr("memoair_protocol.erasure_marks._read_clock", lambda: uptime_s + 60)
            runtime.save("t2", "After.", session_id="two")
    monkeypatch.setattr("memoair_protocol.erasure_marks._read_clock", lambda: uptime_s + 120)
    set_cloud(monkeypatch, ahead=timedelta(seconds=120))
    with new_device() as runtime:  # the clock has been set in between
        eventually(lambda: runtime.sync["unsynced"] == 0)
        assert spoken(client) == ["After."]
        eventually(lambda: runtime.find_texts(SECRET) == [])
        runtime.save("t3", "Now.", session_id="two")
        assert runtime.flush()["pending"] == 0
    assert spoken(client) == ["After.", "Now."]
    folder = UserFolder(runtime.settings.storage_root, runtime.settings.project_id, "ada")
    assert not [path for path in folder.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.usefixtures("same_cloud")
def test_what_was_logged_before_a_restart_of_the_machine_never_comes_back_and_that_is_said(
    cloud: RunningCloud, client: Client, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.pull_user.UserPuller.erase_if_due", lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr("memoair_protocol.erasure_marks._boot_id", lambda _: "earlier")
        set_machine(patched, ahead=timedelta(days=2))
        with new_device(is_online=False) as runtime:
            runtime.save("t1", SECRET, session_id="one")
    erase(client)
    with new_device() as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
        assert runtime.service.metrics.events_forgotten._value.get() == 2  # with the start of the call
    assert spoken(client) == []
    assert (
        'memoair_cloud_events_total{outcome="undecided"} 2.0'
        in generate_latest(cloud.services.metrics.registry).decode()
    )


def test_a_clock_that_is_set_back_after_an_erasure_holds_nothing_back(
    client: Client, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_device() as runtime:
        runtime.save("t1", SECRET, session_id="one")
        runtime.flush()
        receipt = client.ok("DELETE", client.path)
        runtime.forget(receipt["forgottenAt"], receipt["erasure"])
        set_machine(monkeypatch, ahead=-timedelta(hours=3))
        runtime.save("t2", "After.", session_id="one")
        assert runtime.flush()["pending"] == 0
        assert spoken(client) == ["After."]


def test_a_record_with_a_time_in_the_future_is_corrected(
    client: Client, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        set_machine(patched, ahead=timedelta(days=400))
        with new_device() as runtime:
            runtime.save("t1", SECRET, session_id="one")
            runtime.forget()
    with new_device() as runtime:
        now = datetime.now(timezone.utc)
        said = {"occurredAt": (now + timedelta(seconds=30)).isoformat()}  # as a client's outbox tells it later
        assert runtime.save("t2", "After.", session_id="two", metadata=said) != "None"


def test_a_call_that_was_received_or_claimed_while_the_clock_was_ahead_is_learned_from(
    cloud: RunningCloud, client: Client
) -> None:
    client.send(turn("t1", "one"))
    worker = cloud.services.queue._extraction_worker
    assert worker.find_due_projects() == []  # it may go on
    far = datetime.now(timezone.utc) + timedelta(days=400)
    for column in (CallSession.claimed_until, CallSession.retry_at):
        with cloud.services.engine.begin() as connection:
            connection.execute(update(CallSession).values({CallSession.received_at: far, column: far}))
        assert worker.find_due_projects() == [client.identity["project"]]


# The rule itself

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=timezone.utc)
ERASED_AT = NOW - timedelta(hours=1)
BOOT = DeviceTime("boot", 100_000.0)
EVENT = IncomingEvent("e", EventType.TURN, "s", 1, NOW, "{}", None)


def order(event_changes: dict[str, object], erasure: ForgottenUser | None = None, **changes: object) -> EventOrder:
    asked = ForgottenUser(version=7, forgotten_at=ERASED_AT, asked_version=7, asked_at=ERASED_AT)
    known = ErasureOrder(erasure or asked, "epoch", set(), Sender(DeviceClock(BOOT, NOW), NOW))
    event = IncomingEvent(
        **{name: event_changes.get(name, getattr(EVENT, name)) for name in EVENT.__struct_fields__}  # type: ignore[arg-type]
    )
    return attrs.evolve(known, **changes).of(event)


def logged(age_s: float, boot: str = "boot") -> str:
    return str(DeviceTime(boot, BOOT.uptime_s - age_s))


AFTER, BEFORE, UNKNOWN = EventOrder.AFTER, EventOrder.BEFORE, EventOrder.UNKNOWN
LONG_AGO = NOW - timedelta(days=9)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"erasure": "epoch:7", "clock": "", "occurred_at": LONG_AGO}, AFTER),
        ({"erasure": "epoch:8", "clock": logged(9_999, "other"), "occurred_at": LONG_AGO}, AFTER),
        ({"erasure": "epoch:6", "clock": logged(3_599), "occurred_at": LONG_AGO}, AFTER),
        ({"erasure": "epoch:6", "clock": logged(3_601)}, BEFORE),
        ({"erasure": "other:9", "clock": logged(3_601)}, BEFORE),
        ({"erasure": "", "clock": logged(60), "occurred_at": LONG_AGO}, AFTER),
        ({"erasure": "", "clock": logged(60, "other")}, UNKNOWN),
        ({"erasure": "", "clock": logged(-60)}, UNKNOWN),
        ({"erasure": "", "clock": None}, UNKNOWN),
        ({"erasure": "epoch:" + "9" * 40, "clock": "boot:nan"}, UNKNOWN),
        ({}, AFTER),
        ({"occurred_at": ERASED_AT}, BEFORE),
    ],
)
def test_an_event_is_ordered_by_what_was_known_then_by_its_age_then_by_its_time(
    event: dict[str, object], expected: EventOrder
) -> None:
    assert order(event) is expected


def test_a_known_call_is_erased_unless_the_machine_knew() -> None:
    assert order({"erasure": "epoch:6", "clock": logged(1)}, erased_sessions={"s"}) is BEFORE
    assert order({"erasure": "epoch:7", "clock": logged(1)}, erased_sessions={"s"}) is AFTER


def test_a_time_of_a_clock_that_is_ahead_is_corrected_and_one_behind_is_not() -> None:
    for ahead, expected in ((timedelta(hours=2), BEFORE), (-timedelta(hours=2), AFTER)):
        assert order({}, sender=Sender(DeviceClock(BOOT, NOW + ahead), NOW)) is expected


def test_an_erasure_for_inactivity_goes_by_time() -> None:
    inactive = ForgottenUser(version=9, forgotten_at=ERASED_AT, asked_version=0, asked_at=None)
    assert order({"erasure": "epoch:0", "clock": logged(1, "other")}, inactive) is AFTER
    assert order({"erasure": "epoch:0", "clock": logged(1), "occurred_at": LONG_AGO}, inactive) is BEFORE


def test_marks_and_clocks_survive_their_text_and_reject_any_other() -> None:
    mark, clock = ErasureMark("a:b", 3), DeviceClock.now()
    assert ErasureMark.parse(str(mark)) == mark
    assert str(DeviceClock.from_header(clock.to_header())) == str(DeviceClock.from_header(clock.to_header()))
    assert DeviceClock.from_header(clock.to_header()) is not None
    for text in (None, 7, "", "7", ":", "a:-1", "a:1.5", "a:" + "1" * 17, "x" * 300 + ":1"):
        assert ErasureMark.parse(text) is None
    for text in (None, 7, "", "boot", "boot:", ":1", "boot:nan", "boot:inf", "boot:-1"):
        assert DeviceTime.parse(text) is None
    for header in (None, "", "boot:1", "boot:1 soon", "1 2026-01-01"):
        assert DeviceClock.from_header(header) is None
