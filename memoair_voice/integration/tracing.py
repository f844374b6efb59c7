"""Spans within a framework's own: its tracer, and the span of the turn that it answers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memoair_protocol.telemetry import framework_tracer


@contextmanager
def traced_by(tracer: Any = None, context: Any = None) -> Iterator[None]:
    """Let the spans of searches within the block be those of a framework.

    Args:
        tracer: The framework's OpenTelemetry tracer; None for the global one.
        context: The OpenTelemetry context of the turn; None for the current one.
    """
    api = sys.modules.get("opentelemetry.context")
    tracer_token = framework_tracer.set(tracer) if tracer is not None else None
    context_token = api.attach(context) if api is not None and context is not None else None
    try:
        yield
    finally:
        if api is not None and context_token is not None:
            api.detach(context_token)
        if tracer_token is not None:
            framework_tracer.reset(tracer_token)
