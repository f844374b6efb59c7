"""Push: from the outbox to the cloud, batch after batch, by one process at a time."""

import logging
import time

from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import CloudError, FailureKind, unreadable
from memoair_runtime.sync.outbox import MOST_EVENTS, Outbox, OutboxBatch
from memoair_runtime.sync.responses import IngestReceipt
from memoair_runtime.sync.transport import LONGEST_CALL_S, CloudTransport

log = logging.getLogger(__name__)

FORGOTTEN = "cloud.forgotten"
_TOO_LARGE = "cloud.batch_too_large"
_TOO_LARGE_STATUS = 413


class Pusher:
    """Sends one caller's events. Used by one thread."""

    def __init__(
        self,
        folder: UserFolder,
        outbox: Outbox,
        refusals: RejectedEvents,
        transport: CloudTransport,
        metrics: RuntimeMetrics,
    ) -> None:
        self._role = ProcessLock(folder.role("push"))
        self._outbox = outbox
        self._refusals = refusals
        self._transport = transport
        self._metrics = metrics
        self.has_met_forgotten = False  # whether the cloud refused what was said before its caller was forgotten

    def push(self, deadline: float) -> bool:
        """Send all that waits, by the deadline (monotonic seconds); False where another process is at it.

        Raises `CloudError`, or OSError where the disk refuses: what was sent by then stays so.
        """
        if not self._outbox.count:
            return True
        if not self._role.take():
            return False
        try:
            self._outbox.look(everywhere=False)  # the cursors may have moved before the role was ours
            self._send(deadline)
        finally:
            self._role.leave()
        return True

    def _send(self, deadline: float) -> None:
        most = MOST_EVENTS
        while (batch := self._outbox.next_batch(most)) is not None:
            events = batch.events
            try:
                codes = self._offer(batch, deadline)
            except CloudError as failure:
                if failure.kind is not FailureKind.INVALID:
                    raise
                if len(events) > 1:
                    most = len(events) // 2
                    continue
                code = _TOO_LARGE if failure.status == _TOO_LARGE_STATUS else "cloud.invalid"
                codes = {events[0].event_id or "": code}
            most = min(2 * most, MOST_EVENTS)
            self._settle(batch, codes)

    def _offer(self, batch: OutboxBatch, deadline: float) -> dict[str, str | None]:
        """Send a batch; return for each event that is done with why it was refused, or None where it was taken."""
        events = batch.events
        if not events:
            return {}
        until = min(deadline, time.monotonic() + LONGEST_CALL_S)
        receipt = self._transport.push([line.content for line in events], until)
        sent = {line.event_id for line in events}
        return {event_id: code for event_id, code in _told(receipt).items() if event_id in sent}

    def _settle(self, batch: OutboxBatch, codes: "dict[str, str | None] | dict[str, str]") -> None:
        refused = {event_id: code for event_id, code in codes.items() if code is not None}
        if refused:
            self._refusals.note(refused)
            self._metrics.events_refused.inc(len(refused))
            self.has_met_forgotten |= FORGOTTEN in refused.values()
            log.warning("the cloud refuses events for good: action=events_refused events=%d", len(refused))
        self._metrics.events_pushed.inc(len(codes) - len(refused))
        passed = self._outbox.settle(batch, codes.keys())
        if batch.events and not passed:
            raise unreadable("it does not tell what became of the events")


def _told(receipt: IngestReceipt) -> dict[str, str | None]:
    refused = {each.event_id: each.code for each in receipt.rejected if each.event_id is not None}
    return {**refused, **dict.fromkeys([*receipt.accepted, *receipt.duplicate])}
