"""What is seen of each request: its id, one line in the log, and the metrics. Never a path, a header or a body."""

import logging
import re
import time
import uuid

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memoair_cloud.errors import InternalServerError
from memoair_cloud.http.errors import make_error_response

log = logging.getLogger(__name__)

_METHODS = frozenset(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"])
_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class CloudMetrics:
    """What Prometheus is told; each application has its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "memoair_cloud_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "memoair_cloud_request_seconds", "How long requests took.", ["route"], registry=self.registry
        )
        self.events = Counter(
            "memoair_cloud_events", "Events by what became of them.", ["outcome"], registry=self.registry
        )
        self.waiting = Gauge("memoair_cloud_waiting", "Work that waits to be done.", ["work"], registry=self.registry)
        self.oldest_call_s = Gauge(
            "memoair_cloud_oldest_call_seconds",
            "How long the call that has waited longest waits to be learned from.",
            registry=self.registry,
        )
        self.dead_letters = Gauge(
            "memoair_cloud_dead_letters", "Work that failed for good.", ["work"], registry=self.registry
        )


class ObservabilityMiddleware:
    """The outermost layer: it also turns what nobody foresaw into an answer."""

    def __init__(self, app: ASGIApp, metrics: CloudMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.monotonic()
        request_id = _request_id(scope)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("a defect", extra={"action": "request_failed", "fields": {"requestId": request_id}})
            if status is not None:
                raise  # half an answer is out; only the connection's end can tell
            await make_error_response(InternalServerError("something went wrong on our side", requestId=request_id))(
                scope, receive, send_with_id
            )
        self._record_request(scope, request_id, status or 0, time.monotonic() - started_at)

    def _record_request(self, scope: Scope, request_id: str, status: int, duration_s: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        # A method can be any word that a stranger sends.
        method = scope["method"] if route != "unknown" and scope["method"] in _METHODS else "unknown"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(duration_s)
        fields = {
            "requestId": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(duration_s * 1e3, 1),
            "accountId": scope.get("state", {}).get("account_id"),
        }
        log.info("answered", extra={"action": "request", "fields": fields})


def _request_id(scope: Scope) -> str:
    sent_id: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return sent_id.decode() if _VALID_REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
