"""A cloud as a target: ``POST /v1/voice-sdk/events``, packed, tried again where that may help."""

import gzip
import threading
from collections.abc import Sequence

from memoair_cli.cloud_http import CloudHttp, CloudReply, CloudUnreachableError
from memoair_cli.importing.events import ImportEvent
from memoair_cli.importing.targets import RetryPolicy, SendResult, TargetError

_PATH = "/v1/voice-sdk/events"
# Faults of the server or of what stands before it, and too many requests.
_RETRYABLE_STATUSES = frozenset([408, 425, 429, 500, 502, 503, 504])
# Something in the batch is wrong, or it is too large: in two halves, one of them may be taken.
_SPLIT_STATUSES = frozenset([413, 422])
_GZIP_LEVEL = 1  # words pack to a third by it, and the best packing saves little more for ten times the work


class CloudTarget:
    """One project of a cloud. Safe to use from any thread."""

    def __init__(
        self, cloud: CloudHttp, project_id: str, agent_id: str, retry_timeout_s: float, stop_event: threading.Event
    ) -> None:
        self._cloud = cloud
        self._project_id = project_id
        self._headers = {"X-Project-Id": project_id, "Content-Encoding": "gzip"}
        if agent_id:
            self._headers["X-Agent-Id"] = agent_id
        self._retry_timeout_s = retry_timeout_s
        self._stop_event = stop_event

    @property
    def name(self) -> str:
        """The project and where it is."""
        return f"{self._project_id} at {self._cloud.address}"

    def send(self, user_id: str, events: Sequence[ImportEvent]) -> SendResult:
        """Bring a caller's events."""
        content = b'{"events":[%b]}' % b",".join(event.encode() for event in events)
        compressed = gzip.compress(content, _GZIP_LEVEL, mtime=0)
        reply = self._post_with_retries(compressed, {**self._headers, "X-User-Id": user_id})
        if reply.is_ok:
            return self._parse_reply(reply, events)
        if reply.status not in _SPLIT_STATUSES or reply.details.get("field") in ("X-Project-Id", "X-Agent-Id"):
            raise TargetError(self._final_error(reply))
        if len(events) > 1:
            half = len(events) // 2
            return self.send(user_id, events[:half]).add(self.send(user_id, events[half:]))
        return SendResult(rejected={events[0].id: reply.error_message})

    def close(self) -> None:
        """Close the connections."""
        self._cloud.close()

    def _post_with_retries(self, content: bytes, headers: dict[str, str]) -> CloudReply:
        retry_policy = RetryPolicy(self._retry_timeout_s, self._stop_event)
        while True:
            try:
                reply = self._cloud.request("POST", _PATH, content, headers)
            except CloudUnreachableError as error:
                retry_policy.wait(str(error))
                continue
            if reply.status not in _RETRYABLE_STATUSES:
                return reply
            retry_policy.wait(f"{self.name} takes nothing: {reply.error_message}", reply.retry_after_s)

    def _parse_reply(self, reply: CloudReply, events: Sequence[ImportEvent]) -> SendResult:
        body = reply.body or {}
        try:
            result = SendResult(
                set(body["accepted"]),
                set(body["duplicate"]),
                {event["eventId"]: f"{event['code']}: {event['message']}" for event in body["rejected"]},
            )
        except (KeyError, TypeError):
            raise TargetError(f"{self._cloud.address}: what answers is no MemoAir cloud") from None
        reported = result.accepted | result.duplicate | set(result.rejected)
        if not reported.issuperset(event.id for event in events):
            raise TargetError(f"{self._cloud.address} does not say what became of all events")
        return result

    def _final_error(self, reply: CloudReply) -> str:
        hints = {
            401: "; set MEMOAIR_API_KEY to a key that `memoair cloud init` has shown",
            404: "; MEMOAIR_PROJECT_ID and MEMOAIR_AGENT_ID must name a project and an agent of this account",
        }
        return f"{self.name} refuses: {reply.error_message}{hints.get(reply.status, '')}"
