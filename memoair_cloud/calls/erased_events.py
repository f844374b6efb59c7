"""Which events of a user who was erased were said before that, as far as can be known."""

from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from enum import Enum

import attrs

from memoair_cloud.calls.event_parsing import IncomingEvent
from memoair_cloud.database.models import ForgottenUser
from memoair_protocol.erasure_marks import DeviceClock, DeviceTime, ErasureMark

# How far a machine's clock may be ahead for its timestamps to be accepted unchanged.
MAX_CLOCK_SKEW = timedelta(minutes=5)
# A difference of clocks below this is the time that a request takes.
_SAME_TIME = timedelta(seconds=2)
# How long the head of a request may take from the reading of the clock to this server: it may have to connect first.
_MAX_TRANSIT = timedelta(seconds=3)


class EventOrder(Enum):
    """When an event happened, compared to the erasures of its user."""

    AFTER = "after"  # or as far as a machine without marks can say
    BEFORE = "before"
    UNKNOWN = "unknown"  # counts as before: what was erased must never come back


@attrs.frozen
class Sender:
    """The machine that sends events.

    Attributes:
        clock: Its clocks, when it began to send.
        sent_at: When that arrived, by the clock of this server.
    """

    clock: DeviceClock
    sent_at: datetime


@attrs.frozen
class ErasureOrder:
    """Orders the events of one request against the erasures of their user.

    Attributes:
        erasure: The record of the erasures.
        epoch: The epoch of the project.
        erased_sessions: Those of the events' sessions that were known when the user was erased.
        sender: The machine that sends the events, if it tells its clocks.
    """

    erasure: ForgottenUser
    epoch: str | None
    erased_sessions: AbstractSet[str]
    sender: Sender | None

    def of(self, event: IncomingEvent) -> EventOrder:
        """Return when an event happened."""
        mark = ErasureMark.parse(event.erasure)
        if mark is not None and mark.includes(ErasureMark(self.epoch or "", self.erasure.asked_version)):
            # The machine had carried out the erasure when it logged this. One for inactivity goes by time alone.
            is_asked = self.erasure.version == self.erasure.asked_version
            return EventOrder.AFTER if is_asked or event.occurred_at > self.erasure.forgotten_at else EventOrder.BEFORE
        if event.session_id in self.erased_sessions:
            return EventOrder.BEFORE
        if event.erasure is None or self.erasure.asked_at is None:
            return EventOrder.BEFORE if self._latest_time(event) <= self.erasure.forgotten_at else EventOrder.AFTER
        return self._by_age(event, self.erasure.asked_at)

    def _by_age(self, event: IncomingEvent, asked_at: datetime) -> EventOrder:
        """EventOrder an event that a machine logged as it happened, without knowing of the last erasure."""
        logged_at = DeviceTime.parse(event.clock)
        if logged_at is None or self.sender is None:
            return EventOrder.UNKNOWN
        age_s = self.sender.clock.time.seconds_since(logged_at)
        if age_s is None or age_s < 0:
            return EventOrder.UNKNOWN
        erased_at = max(asked_at, self.erasure.forgotten_at) + _MAX_TRANSIT  # which would make an event look younger
        return EventOrder.BEFORE if self.sender.sent_at - timedelta(seconds=age_s) <= erased_at else EventOrder.AFTER

    def _latest_time(self, event: IncomingEvent) -> datetime:
        """Return the time of an event that says so itself, corrected if the machine's clock is ahead."""
        if self.sender is None:
            return event.occurred_at
        ahead = self.sender.clock.wall - self.sender.sent_at
        return event.occurred_at - ahead if ahead > _SAME_TIME else event.occurred_at


def correct_impossible_time(erasure: ForgottenUser, now: datetime) -> None:
    """Correct the time of an erasure that is in the future: the clock of this server was ahead.

    The erasure has happened, so it is not later than now. Else everything that is said until then would be rejected.
    """
    if erasure.forgotten_at > now + MAX_CLOCK_SKEW:
        erasure.forgotten_at = now
    if erasure.asked_at is not None and erasure.asked_at > now + MAX_CLOCK_SKEW:
        erasure.asked_at = now
