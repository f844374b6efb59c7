"""LiveKit's tracer, which has a provider of its own if the application gives it one."""

from typing import Any


def find_tracer() -> Any:
    """Return LiveKit's tracer; None from versions that have none."""
    try:
        from livekit.agents.telemetry import tracer
    except ImportError:
        return None
    return tracer
