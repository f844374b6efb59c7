"""Spans of OpenTelemetry, exported to memory, and recall traces on the disk."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def exporting_spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a provider the global one within the block, and yield an exporter with its spans.

    OpenTelemetry lets a process set its provider only once, so this replaces it where it is stored.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def spans_named(exporter: Any, name: str) -> list[Any]:
    """Return the exported spans with a name."""
    return [span for span in exporter.get_finished_spans() if span.name == name]


def traces_in(storage_root: Path) -> list[dict[str, Any]]:
    """Return the recall traces on the disk."""
    files = sorted(storage_root.rglob("recall_traces*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
