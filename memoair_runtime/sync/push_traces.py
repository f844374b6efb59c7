"""Push of recall traces: behind the turns, in batches, by one process at a time. They never matter to the turns."""

import logging
import time
from http import HTTPStatus

import msgspec

from memoair_protocol.limits import MAX_TRACES
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.trace_file import TraceFile
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.transport import CloudTransport

log = logging.getLogger(__name__)

# A cloud that hangs must not keep the turns that come after these traces waiting.
CALL_TIMEOUT_S = 5.0
_MAX_BATCH_BYTES = 1 << 20


class _TraceLine(msgspec.Struct, frozen=True):
    cloud: str | None = None


_decode_line = msgspec.json.Decoder(_TraceLine).decode


class TracePusher:
    """Sends the recall traces of one user. For one thread.

    Attributes:
        is_unsupported: Whether the cloud is older than recall traces. Nothing more is sent to it then.
    """

    def __init__(self, folder: UserFolder, cloud: str, transport: CloudTransport, metrics: RuntimeMetrics) -> None:
        self._file = TraceFile(folder.recall_traces)
        self._lock = ProcessLock(folder.lock("traces"))
        self._cloud = cloud
        self._transport = transport
        self._metrics = metrics
        self.is_unsupported = False

    def push(self, deadline: float) -> None:
        """Send the traces that were written. What the cloud refuses is dropped.

        Args:
            deadline: When to stop, in monotonic seconds.

        Raises:
            CloudError: A request failed; what was not sent stays for another time.
            OSError: A file cannot be read.
        """
        if self.is_unsupported or not self._file.path.parent.is_dir() or not self._lock.try_acquire():
            return
        try:
            while lines := self._file.take():
                for batch in _make_batches([line for line in lines if self._is_for_cloud(line)]):
                    if not self._send(batch, deadline):
                        return
                self._file.finish()
        finally:
            self._lock.release()

    def _send(self, batch: list[bytes], deadline: float) -> bool:
        """Send a batch; return whether the cloud takes traces at all."""
        try:
            accepted = self._transport.push_traces(batch, min(deadline, time.monotonic() + CALL_TIMEOUT_S))
        except CloudError as error:
            if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) and error.rejected_part is None:
                self.is_unsupported = True
                log.info("the cloud keeps no recall traces: action=traces_unsupported")
                return False
            if error.kind is not FailureKind.INVALID:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                return self._send(batch[:middle], deadline) and self._send(batch[middle:], deadline)
            accepted = 0
        self._metrics.traces_dropped.inc(len(batch) - accepted)
        return True

    def _is_for_cloud(self, line: bytes) -> bool:
        try:
            return _decode_line(line).cloud == self._cloud
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False


def _make_batches(lines: list[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    size = 0
    for line in lines:
        if not batches or len(batches[-1]) >= MAX_TRACES or size + len(line) > _MAX_BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(line)
        size += len(line)
    return batches
