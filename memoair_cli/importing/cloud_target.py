"""A cloud as the target of an import: ``POST /v1/voice-sdk/events``, compressed, with retries."""

import gzip
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memoair_cli.importing.events import ImportEvent
from memoair_cli.importing.targets import RetryPolicy, SendResult, TargetError
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.http_headers import encode_header

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_PATH = "/v1/voice-sdk/events"
# Errors of the server or of a proxy before it, and rate limits.
_RETRYABLE_STATUSES = frozenset([408, 425, 429, 500, 502, 503, 504])
# The batch is too large, or something in it is invalid: split in two halves, the rest of it may be accepted.
_SPLIT_STATUSES = frozenset([413, 422])
_GZIP_LEVEL = 1  # compresses transcripts to a third; level 9 saves little more and takes ten times as long


class CloudTarget:
    """A project of a cloud. Safe to use from any thread.

    Args:
        cloud: The client of the cloud. `close` closes it.
        project_id: The project to import into.
        agent_id: The agent of the calls, may be empty.
        retry_timeout_s: Seconds to retry a batch for.
        stop_event: Interrupts the retries when it is set.
    """

    def __init__(
        self, cloud: "CloudHttp", project_id: str, agent_id: str, retry_timeout_s: float, stop_event: threading.Event
    ) -> None:
        self._cloud = cloud
        self._project_id = project_id
        self._headers = {"X-Project-Id": encode_header(project_id), "Content-Encoding": "gzip"}
        if agent_id:
            self._headers["X-Agent-Id"] = encode_header(agent_id)
        self._retry_timeout_s = retry_timeout_s
        self._stop_event = stop_event

    @property
    def name(self) -> str:
        """The project and the address of the cloud."""
        return f"{self._project_id} at {self._cloud.address}"

    def send(self, user_id: str, events: Sequence[ImportEvent]) -> SendResult:
        """Send events of a user. See `ImportTarget.send`."""
        content = b'{"events":[%b]}' % b",".join(event.encode() for event in events)
        compressed = gzip.compress(content, _GZIP_LEVEL, mtime=0)
        reply = self._post_with_retries(compressed, {**self._headers, "X-User-Id": encode_header(user_id)})
        if reply.is_ok:
            return self._parse_reply(reply, events)
        if reply.status not in _SPLIT_STATUSES or _invalid_field(reply) in ("X-Project-Id", "X-Agent-Id"):
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
                retry_policy.wait(f"the cloud at {self._cloud.address} is unreachable: {error}")
                continue
            if reply.status not in _RETRYABLE_STATUSES:
                return reply
            retry_policy.wait(f"{self.name} accepts no events: {reply.error_message}", reply.retry_after_s)

    def _parse_reply(self, reply: CloudReply, events: Sequence[ImportEvent]) -> SendResult:
        body = reply.body or {}
        try:
            result = SendResult(
                set(body["accepted"]),
                set(body["duplicate"]),
                {event["eventId"]: f"{event['code']}: {event['message']}" for event in body["rejected"]},
            )
        except (KeyError, TypeError):
            raise TargetError(f"{self._cloud.address}: the server is not a MemoAir cloud") from None
        reported = result.accepted | result.duplicate | set(result.rejected)
        if not reported.issuperset(event.id for event in events):
            raise TargetError(f"{self._cloud.address} did not report the result of all events")
        return result

    def _final_error(self, reply: CloudReply) -> str:
        hints = {
            401: "; set MEMOAIR_API_KEY to a key from `memoair cloud init`",
            404: "; MEMOAIR_PROJECT_ID and MEMOAIR_AGENT_ID must name a project and an agent of this account",
        }
        return f"{self.name} rejected the request: {reply.error_message}{hints.get(reply.status, '')}"


def _invalid_field(reply: CloudReply) -> object:
    details = (reply.error or {}).get("details")
    return details.get("field") if isinstance(details, dict) else None
