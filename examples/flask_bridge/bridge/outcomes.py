"""What became of each request: a counter, and a log line where nothing was kept. Neither has words or numbers in it."""

import logging
import os
import re
from enum import Enum

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

log = logging.getLogger("bridge")

_EVENTS = Counter("bridge_events", "Requests of the platforms, by what became of them", ["platform", "outcome"])
_TURNS = Counter("bridge_kept_turns", "Turns on disk, counted with each delivery", ["platform"])
_INVALID_FIELDS = Counter("bridge_invalid_fields", "Fields of an invalid type, which were ignored", ["platform"])
_RECALLS = Counter("bridge_recalls", "Searches of the memory", ["result"])
_NAME_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Outcome(Enum):
    """What became of a request."""

    KEPT = "kept"  # what was said is on disk
    RECALLED = "recalled"  # memories were asked for
    IGNORED = "ignored"  # an event without words, such as a status
    DUPLICATE = "duplicate"  # a turn that was delivered again and got the same answer
    SUPERSEDED = "superseded"  # an answer that a later request for the same turn replaces
    CUT_HISTORY = "cut_history"  # a turn whose number is unknown, which only the report of the call can keep
    NO_CALLER = "no_caller"
    NO_CALL_ID = "no_call_id"
    NO_WORDS = "no_words"
    MACHINE = "answering_machine"  # the agent's words are kept, those of the machine are not
    UNKNOWN_TYPE = "unknown_type"
    ERASED = "erased"  # the caller was erased since they said it
    REFUSED = "refused"  # the memory can never save these turns
    UNAVAILABLE = "unavailable"  # 503: the platform should send it again
    DEFERRED = "deferred"  # a turn that is saved in the background
    LOST = "lost"
    INVALID = "invalid"  # 400
    UNAUTHORIZED = "unauthorized"  # 401, 403
    TOO_LARGE = "too_large"  # 413
    ERROR = "error"  # 500
    MODEL_FAILED = "model_failed"


_LOGGED = {
    Outcome.NO_CALLER: "the caller is unknown, so nothing is kept or recalled",
    Outcome.CUT_HISTORY: "the messages do not go back to the beginning of the call, so the turn is left to its report",
    Outcome.NO_CALL_ID: "the call has no id, so nothing is kept",
    Outcome.NO_WORDS: "a call has no words, so nothing is kept",
    Outcome.MACHINE: "an answering machine took the call: what it said is not kept",
    Outcome.UNKNOWN_TYPE: "a message of an unknown type is ignored",
    Outcome.ERASED: "turns of a caller who was erased since are not kept",
    Outcome.REFUSED: "turns can never be saved and are dropped",
    Outcome.UNAVAILABLE: "turns are not saved; the platform should send them again",
    Outcome.LOST: "a turn is lost",
    Outcome.INVALID: "a request is invalid",
    Outcome.UNAUTHORIZED: "a request is not authentic",
    Outcome.TOO_LARGE: "a request is too large",
    Outcome.ERROR: "a request failed",
    Outcome.MODEL_FAILED: "the language model failed",
}


def record(platform: str, outcome: Outcome, *, call_id: str = "", detail: str = "", turns: int = 0) -> None:
    """Count what became of a request, and log it if something was not kept.

    Args:
        platform: The platform that sent the request.
        outcome: What became of it.
        call_id: The platform's id of the call.
        detail: A code or the name of a type. Anything else is not logged.
        turns: The number of turns in it.
    """
    _EVENTS.labels(platform, outcome.value).inc()
    if outcome in (Outcome.KEPT, Outcome.MACHINE):
        _TURNS.labels(platform).inc(turns)
    if outcome in _LOGGED:
        log.warning(
            "%s: platform=%s outcome=%s call=%s detail=%s turns=%s",
            _LOGGED[outcome],
            platform,
            outcome.value,
            _printable(call_id),
            _printable(detail),
            turns,
        )


def count_invalid_field(platform: str) -> None:
    """Count a field of an invalid type."""
    _INVALID_FIELDS.labels(platform).inc()


def count_recall(result: str) -> None:
    """Count a search: ``found``, ``empty``, ``partial`` or ``failed``."""
    _RECALLS.labels(result).inc()


def render_metrics() -> bytes:
    """Return the counters of all workers as Prometheus text.

    With several workers, `PROMETHEUS_MULTIPROC_DIR` must name a folder that they share; `gunicorn.conf.py` makes one.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest()


def _printable(name: str) -> str:
    return name if _NAME_PATTERN.fullmatch(name) else "-"
