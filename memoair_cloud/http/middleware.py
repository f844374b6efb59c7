"""Observability of requests: a request id, one log line and metrics, all without paths, headers and bodies."""

import logging
import re
import time
import uuid
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memoair_cloud.errors import InternalServerError
from memoair_cloud.http.errors import make_error_response
from memoair_cloud.http.model_metrics import ModelCollector
from memoair_cloud.http.spans import start_request_span
from memoair_protocol.erasure_marks import SERVER_TIME_HEADER
from memoair_protocol.timestamps import format_utc, utc_now

log = logging.getLogger(__name__)

_SERVER_TIME = SERVER_TIME_HEADER.lower().encode()

_METHODS = frozenset(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"])
_VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class CloudMetrics:
    """The Prometheus metrics of one application.

    Attributes:
        registry: The registry that holds them.
        requests: Number of requests by method, route and status.
        seconds: Durations of requests by route.
        events: Number of ingested events by outcome.
        recall_traces: Number of ingested recall traces by outcome.
        outcomes: Number of reported outcomes of calls by result.
        waiting: Size of the backlog by kind of work.
        oldest_call_s: Age of the oldest call in the backlog, in seconds.
        dead_letters: Number of dead letters by kind of work.
        dropped: Number of turns, callers, ... that this process has dropped for their age, by kind.
        evaluation_cases: Number of cases of evaluations that this process has scored.
        model: What projects have used of a language model.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "memoair_cloud_requests",
            "Requests by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "memoair_cloud_request_seconds", "Duration of requests in seconds.", ["route"], registry=self.registry
        )
        self.events = Counter(
            "memoair_cloud_events", "Ingested events by outcome.", ["outcome"], registry=self.registry
        )
        self.recall_traces = Counter(
            "memoair_cloud_recall_traces", "Ingested recall traces by outcome.", ["outcome"], registry=self.registry
        )
        self.outcomes = Counter(
            "memoair_cloud_outcomes", "Reported outcomes of calls by result.", ["result"], registry=self.registry
        )
        self.waiting = Gauge(
            "memoair_cloud_waiting", "Size of the backlog by kind of work.", ["work"], registry=self.registry
        )
        self.oldest_call_s = Gauge(
            "memoair_cloud_oldest_call_seconds",
            "Age of the oldest ended call that is not consolidated yet, in seconds.",
            registry=self.registry,
        )
        self.dead_letters = Gauge(
            "memoair_cloud_dead_letters",
            "Work that failed too often to be retried, by kind.",
            ["work"],
            registry=self.registry,
        )
        self.dropped = Counter(
            "memoair_cloud_dropped",
            "What was dropped because it was older than a project keeps it, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.evaluation_cases = Counter(
            "memoair_cloud_evaluation_cases", "Cases of evaluations that were scored.", registry=self.registry
        )
        self.model = ModelCollector()
        self.registry.register(self.model)

    def record_dropped(self, counts: Mapping[str, int]) -> None:
        """Count what was dropped for its age, by kind."""
        for kind, count in counts.items():
            self.dropped.labels(kind).inc(count)


class ObservabilityMiddleware:
    """The outermost middleware. It also turns unexpected exceptions into error responses."""

    def __init__(self, app: ASGIApp, metrics: CloudMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.monotonic()
        scope.setdefault("state", {})["arrived_at"] = utc_now()  # before the body, which may take long
        request_id = _request_id(scope)
        span = start_request_span(dict(scope["headers"]))
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (b"x-request-id", request_id.encode()), (_SERVER_TIME, format_utc(utc_now()).encode())
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("unexpected error", extra={"action": "request_failed", "fields": {"requestId": request_id}})
            if status is not None:
                raise  # the response has begun; only closing the connection can signal the error
            await make_error_response(InternalServerError("internal server error", requestId=request_id))(
                scope, receive, send_with_id
            )
        method, route = self._record_request(scope, request_id, status or 0, time.monotonic() - started_at)
        if span is not None:
            span.end(method, route, status or 0)

    def _record_request(self, scope: Scope, request_id: str, status: int, duration_s: float) -> tuple[str, str]:
        """Record a request in metrics and log; return its method and route as they may be recorded."""
        route = getattr(scope.get("route"), "path", "unknown")
        # A client may send any word as the method; unknown methods must not become labels.
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
        log.info("answered a request", extra={"action": "request", "fields": fields})
        return method, route


def _request_id(scope: Scope) -> str:
    sent_id: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return sent_id.decode() if _VALID_REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
