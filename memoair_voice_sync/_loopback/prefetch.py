"""Prefetch: searches on what a caller has said so far, so that the result is ready for the final words.

Only the last result of each user is kept, for a few seconds.
"""

import json
import threading
import time
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import attrs

from memoair_protocol.keyed_queue import KeyedQueue
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.search_options import SearchOptions
from memoair_voice_sync._recall.observer import SearchTrace
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import SearchResult

# A recognizer turns its last interim transcript into the final one within some hundred milliseconds.
PREFETCH_TTL_S = 5.0
# The time that a prefetch may take, including the start of a runtime.
PREFETCH_TIMEOUT_S = 1.0
_MAX_THREADS = 8
# An idle thread lingers: the next interim transcript comes soon, and waking a thread is faster than starting one.
LINGER_S = 2.0
# Punctuation that is part of a word: "." "," and ":" between two digits, an apostrophe between two letters.
_PUNCTUATION_IN_WORDS = {**dict.fromkeys(".,:", str.isdigit), "'": str.isalpha}
_SPOKEN_SYMBOLS = frozenset("%&@#")  # "50 %" is not "50"


def normalize_transcript(text: str) -> str:
    """Return the words of a text without differences that do not affect search: case, punctuation, whitespace.

    A recognizer adds those only to the final transcript.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    padded = f" {folded} "
    chars = [char if _is_spoken(char, padded[i], padded[i + 2]) else " " for i, char in enumerate(folded)]
    return " ".join("".join(chars).split())


def _is_spoken(char: str, before: str, after: str) -> bool:
    is_part = _PUNCTUATION_IN_WORDS.get(char)
    if is_part is not None:
        return is_part(before) and is_part(after)
    return char in _SPOKEN_SYMBOLS or not unicodedata.category(char).startswith("P")


@attrs.frozen(slots=False)
class SearchArguments:
    """The arguments of a search except its deadline. The ``repr`` does not show what was said."""

    user: User = attrs.field(repr=False)
    query: str = attrs.field(repr=False)
    options: SearchOptions = attrs.field(repr=False)
    session_id: str | None = attrs.field(default=None, repr=False)  # the call, if it has a name
    trace: SearchTrace | None = attrs.field(default=None, repr=False)  # for those who observe searches

    @cached_property
    def key(self) -> tuple[str, str]:
        """Equal for searches that have the same result as long as the memory does not change."""
        return normalize_transcript(self.query), json.dumps(
            [self.user.fields, self.session_id, attrs.asdict(self.options)], default=repr
        )


@attrs.frozen
class PrefetchedResult:
    """A result, and the version of the user's memory that it is from."""

    version: object
    result: SearchResult = attrs.field(repr=False)
    trace_id: str | None = None


@attrs.frozen
class _PrefetchEntry:
    key: tuple[str, str] = attrs.field(repr=False)
    prefetched: PrefetchedResult
    requested_at: float


class PrefetchCache:
    """Prefetched results by user, made by a few threads that end when there is nothing to do.

    While a prefetch of a user is running, only the latest further one is queued. Safe to use from any thread.
    """

    def __init__(self, search: Callable[[SearchArguments], PrefetchedResult]) -> None:
        """Create an empty cache. ``search`` must return or raise within `PREFETCH_TIMEOUT_S`."""
        self._search = search
        self._queue = KeyedQueue(
            self._run_search, name="memoair-prefetch", max_threads=_MAX_THREADS, linger_s=LINGER_S
        )  # by user id
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop everything in the child of a fork: running searches belong to the parent."""
        self._queue.reset_after_fork()
        self._lock = threading.Lock()
        self._entries: dict[str, _PrefetchEntry] = {}  # by user id
        self.hits = 0

    def submit(self, arguments: SearchArguments) -> None:
        """Start a search in the background, and return immediately; raise ``pool.closed`` after `close`."""
        if not self._queue.put(arguments.user.id, arguments, should_replace=True):
            raise closed_error()

    def pop(self, arguments: SearchArguments, version: object) -> SearchResult | None:
        """Remove and return the result for these arguments, if it is recent and of this memory version; else None."""
        entry = self.discard(arguments.user)  # the final search is here: a queued prefetch is of no use any more
        age_s = 0.0 if entry is None else time.monotonic() - entry.requested_at
        if entry is None or age_s > PREFETCH_TTL_S or entry.prefetched.version != version or entry.key != arguments.key:
            return None
        with self._lock:
            self.hits += 1
        result = entry.prefetched.result
        prefetched: dict[str, Any] = {"ageMs": round(age_s * 1e3, 3)}
        if entry.prefetched.trace_id:
            prefetched["traceId"] = entry.prefetched.trace_id
        return replace(result, trace={**result.trace, "prefetched": prefetched})

    def discard(self, user: User) -> _PrefetchEntry | None:
        """Discard the queued search of a user, and remove and return the result of the last one."""
        if user.id not in self._entries and user.id not in self._queue:  # most searches have no prefetch
            return None
        self._queue.discard(user.id)
        with self._lock:
            return self._entries.pop(user.id, None)

    def close(self) -> None:
        """Start no more searches, and wait for those that are running."""
        self._queue.close(join_timeout_s=2 * PREFETCH_TIMEOUT_S)
        with self._lock:
            self._entries.clear()

    def _run_search(self, arguments: SearchArguments) -> None:
        requested_at = time.monotonic()
        try:
            prefetched = self._search(arguments)
        except MemoAirVoiceMemoryError as error:
            log.info("a prefetch failed: action=prefetch_failed code=%s", error.code)
            return
        expired_before = time.monotonic() - PREFETCH_TTL_S
        with self._lock:
            self._entries = {
                user_id: kept for user_id, kept in self._entries.items() if kept.requested_at > expired_before
            }
            if not prefetched.result.trace.get("degraded"):
                self._entries[arguments.user.id] = _PrefetchEntry(arguments.key, prefetched, requested_at)
