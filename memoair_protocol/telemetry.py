"""OpenTelemetry, if the application uses it. This module imports nothing of it.

An application that wants spans has imported OpenTelemetry and set a tracer provider before its first call. So nothing
has to be configured here, and an application without it pays for a look into a dict.
"""

import sys
from contextvars import ContextVar
from typing import Any

# A framework may have a tracer of its own instead of the global one. Its integration sets it.
framework_tracer: ContextVar[Any] = ContextVar("memoair_framework_tracer", default=None)


def find_tracer(name: str) -> Any:
    """Return a tracer, or None if none is configured.

    Args:
        name: The name of the instrumenting package.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None or not hasattr(api, "get_tracer_provider"):
        return None
    tracer = framework_tracer.get()
    if tracer is not None:
        return tracer
    provider = api.get_tracer_provider()
    return None if isinstance(provider, api.ProxyTracerProvider) else provider.get_tracer(name)


def format_traceparent(span: Any) -> str | None:
    """Return the W3C trace context of a span, or None if it has none."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def current_traceparent() -> str | None:
    """Return the W3C trace context of the current span, or None without one."""
    api = sys.modules.get("opentelemetry.trace")
    return None if api is None or not hasattr(api, "get_current_span") else format_traceparent(api.get_current_span())
