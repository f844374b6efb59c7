"""Push: events from the outbox to the cloud, in batches, by one process at a time."""

import logging
import math
import time
from contextlib import suppress
from http import HTTPStatus

from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import CloudError, FailureKind, invalid_response
from memoair_runtime.sync.outbox import MAX_BATCH_EVENTS, Outbox, OutboxBatch
from memoair_runtime.sync.responses import IngestReceipt
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)

ERASED_CODE = "cloud.forgotten"
_TOO_LARGE_CODE = "cloud.batch_too_large"


class Pusher:
    """Sends the events of one user. For one thread.

    Attributes:
        has_seen_erasure: Whether the cloud has rejected events from before an erasure of their user.
    """

    def __init__(
        self,
        folder: UserFolder,
        outbox: Outbox,
        rejected_events: RejectedEvents,
        transport: CloudTransport,
        metrics: RuntimeMetrics,
    ) -> None:
        self._lock = ProcessLock(folder.lock("push"))
        self._outbox = outbox
        self._rejected_events = rejected_events
        self._transport = transport
        self._metrics = metrics
        self.has_seen_erasure = False

    def scan(self, *, all_sessions: bool) -> None:
        """Count the unsent events on the disk.

        Args:
            all_sessions: Whether to look at every session, and at the rejected events; else only at sessions in which
                this process has logged events.
        """
        if all_sessions:
            self._rejected_events.load()
        with suppress(OSError):  # a pull and a push scan again and report the error
            self._outbox.scan(all_sessions=all_sessions)

    def push(self, deadline: float, max_batches: float = math.inf) -> bool:
        """Send the unsent events.

        Args:
            deadline: When to stop, in monotonic seconds.
            max_batches: How many batches to send at most.

        Returns:
            False if another process is pushing.

        Raises:
            CloudError: A request failed. What was sent before it stays acknowledged.
            OSError: A file cannot be written.
        """
        if not self._outbox.count:
            return True
        if not self._lock.try_acquire():
            return False
        try:
            self._outbox.scan(all_sessions=False)  # another process may have moved the cursors before
            self._send(deadline, max_batches)
        finally:
            self._lock.release()
        return True

    def _send(self, deadline: float, max_batches: float) -> None:
        max_events, batches = MAX_BATCH_EVENTS, 0
        while batches < max_batches and (batch := self._outbox.next_batch(max_events)) is not None:
            event_lines = batch.event_lines
            try:
                codes = self._send_batch(batch, deadline)
            except CloudError as error:
                if error.kind is not FailureKind.INVALID:
                    raise
                if len(event_lines) > 1:
                    max_events = len(event_lines) // 2
                    continue
                code = _TOO_LARGE_CODE if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else "cloud.invalid"
                codes = {event_lines[0].event_id or "": code}
            batches += 1
            max_events = min(2 * max_events, MAX_BATCH_EVENTS)
            self._acknowledge(batch, codes)

    def _send_batch(self, batch: OutboxBatch, deadline: float) -> dict[str, str | None]:
        """Send a batch; return its events that are done, with the error code if rejected or None if accepted."""
        event_lines = batch.event_lines
        if not event_lines:
            return {}
        call_deadline = min(deadline, time.monotonic() + CALL_TIMEOUT_S)
        contents = [line.content for line in event_lines]
        try:
            receipt = self._transport.push_events(contents, call_deadline, batch.agent_id)
        except CloudError as error:
            if error.status != HTTPStatus.NOT_FOUND or batch.agent_id in (None, self._transport.agent_id):
                raise
            receipt = self._transport.push_events(contents, call_deadline)  # the agent that logged them is gone
        sent_event_ids = {line.event_id for line in event_lines}
        return {event_id: code for event_id, code in _codes_by_event(receipt).items() if event_id in sent_event_ids}

    def _acknowledge(self, batch: OutboxBatch, codes: "dict[str, str | None] | dict[str, str]") -> None:
        rejected = {event_id: code for event_id, code in codes.items() if code is not None}
        if rejected:
            self._rejected_events.record(rejected)
            self._metrics.events_refused.inc(len(rejected))
            forgotten = sum(code == ERASED_CODE for code in rejected.values())
            self.has_seen_erasure |= forgotten > 0
            self._metrics.events_forgotten.inc(forgotten)
            message = "the cloud permanently rejected events: action=events_refused events=%d forgotten=%d"
            log.warning(message, len(rejected), forgotten)
        self._metrics.events_pushed.inc(len(codes) - len(rejected))
        done_count = self._outbox.acknowledge(batch, codes.keys())
        if batch.event_lines and not done_count:
            raise invalid_response("it does not report the outcome of the events")


def _codes_by_event(receipt: IngestReceipt) -> dict[str, str | None]:
    rejected = {record.event_id: record.code for record in receipt.rejected if record.event_id is not None}
    return {**rejected, **dict.fromkeys([*receipt.accepted, *receipt.duplicate])}
