"""Spans of requests, if OpenTelemetry is configured in the server's process, as ``opentelemetry-instrument`` does.

They have the method, the route and the status, and never a path, a header or a body.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from memoair_protocol.telemetry import find_tracer

_TRACER = "memoair_cloud"
_PROJECT_HEADER = b"x-project-id"


@attrs.frozen
class RequestSpan:
    """The open span of a request."""

    span: Any

    def end(self, method: str, route: str, status: int) -> None:
        """End the span.

        Args:
            method: The HTTP method.
            route: The route, with the names of its parameters.
            status: The status of the response; 0 without one.
        """
        from opentelemetry.trace import Status, StatusCode

        self.span.update_name(f"{method} {route}")
        self.span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if status == 0 or status >= 500:
            self.span.set_status(Status(StatusCode.ERROR))
            self.span.set_attribute("error.type", str(status))
        self.span.end()


def start_request_span(headers: Mapping[bytes, bytes]) -> RequestSpan | None:
    """Start the span of a request, as a child of the client's if it sends ``traceparent``; None without a tracer.

    Args:
        headers: The headers of the request, names in lower case.
    """
    tracer = find_tracer(_TRACER)
    if tracer is None:
        return None
    from opentelemetry.trace import SpanKind  # loaded already: a tracer is configured
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: headers[name.encode()].decode("latin-1") for name in ("traceparent",) if name.encode() in headers}
    context = TraceContextTextMapPropagator().extract(carrier)
    span = tracer.start_span("request", context=context, kind=SpanKind.SERVER)
    if project_id := headers.get(_PROJECT_HEADER):
        span.set_attribute("memoair.project_id", project_id.decode("utf-8", "replace"))
    return RequestSpan(span)
