"""Recall ahead: while the caller still speaks, what he has said so far is asked for, so that the answer is there.

Nothing of it is kept but the last answer for each caller, for a few seconds.
"""

import json
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import attrs

import memoair_voice_sync._arguments as check
from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import CLIENT_CLOSED, RuntimeHandle
from memoair_voice_sync._log import log
from memoair_voice_sync._results import SearchResult
from memoair_voice_sync._user import User

# Between the last words that a recogniser guesses and those that it settles on lie some hundred milliseconds.
PREFETCH_TTL_S = 5.0
# How long a recall ahead may take, the start of a runtime included.
PREFETCH_TIMEOUT_S = 1.0
_MAX_THREADS = 8
# The next guess of a recogniser comes soon, and to start a thread takes longer than to wake one.
LINGER_S = 2.0
# Punctuation that is part of a word: of a number between two digits, of any other between two letters.
_PUNCTUATION_IN_WORDS = {**dict.fromkeys(".,:", str.isdigit), "'": str.isalpha}
_SPOKEN_SYMBOLS = frozenset("%&@#")  # "50 %" is not "50"


def normalize_transcript(text: str) -> str:
    """The words of a text, as a voice says them: without case, punctuation and the width of spaces.

    What is no more than that apart makes no difference to recall, and a recogniser adds it only at the end.
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
    """Who asks what, and how: the arguments of a search but its deadline."""

    user: User = attrs.field(repr=False)
    query: str = attrs.field(repr=False)
    options: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def parse(cls, user: User, query: str, **options: Any) -> "SearchArguments":
        """Check how something is asked: ``lanes``, ``intent``, ``top_k``, ``filter``."""
        lanes, top_k, metadata_filter = options["lanes"], options["top_k"], options["filter"]
        checked = {
            "lanes": check.lanes(lanes),
            "intent": check.text("intent", options["intent"]),
            "top_k": None if top_k is None else check.json_mapping("top_k", top_k),
            "filter": None if metadata_filter is None else check.json_mapping("filter", metadata_filter),
        }
        return cls(user, query, checked)

    @cached_property
    def key(self) -> tuple[str, str]:
        """The same for questions that have the same answer as long as nothing changes."""
        return normalize_transcript(self.query), json.dumps([self.user.fields, self.options], default=repr)


@attrs.frozen
class PrefetchedResult:
    """An answer, and the state of the caller's memory that it is from."""

    version: object
    result: SearchResult = attrs.field(repr=False)


@attrs.frozen
class _PrefetchEntry:
    key: tuple[str, str] = attrs.field(repr=False)
    prefetched: PrefetchedResult
    requested_at: float


class PrefetchCache:
    """Recalls ahead for each caller, in a few threads that end when there is nothing to do. For any thread.

    Of what is asked for one caller while another question of his is under way, the latest is asked next and the rest
    never.
    """

    def __init__(self, search: Callable[[SearchArguments], PrefetchedResult]) -> None:
        """``recall`` asks, within `PATIENCE_S`."""
        self._search = search
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Condition()
        self._queued: dict[str, SearchArguments] = {}  # by caller
        self._running: set[str] = set()  # callers whose question is under way
        self._entries: dict[str, _PrefetchEntry] = {}
        self._threads: set[threading.Thread] = set()
        self._is_closed = False
        self.hits = 0

    def submit(self, arguments: SearchArguments) -> None:
        """Ask behind the caller's back, and return at once. Raises ``pool.closed`` after the end."""
        with self._lock:
            if self._is_closed:
                raise MemoAirVoiceMemoryError("pool.closed", CLIENT_CLOSED)
            self._queued[arguments.user.id] = arguments
            idle_threads = len(self._threads) - len(self._running)
            if idle_threads >= len(self._queued.keys() - self._running) or len(self._threads) >= _MAX_THREADS:
                self._lock.notify()  # a thread that is idle, or one that is at work, comes to it
                return
            thread = threading.Thread(target=self._run_worker, name="memoair-prefetch", daemon=True)
            try:
                thread.start()  # it waits for the lock
            except RuntimeError:  # the process is at its limit, or ends: then there is no recall ahead
                self._queued.pop(arguments.user.id)
                return
            self._threads.add(thread)

    def pop(self, arguments: SearchArguments, version: object) -> SearchResult | None:
        """The answer, if just this was asked, of the memory in this state, a moment ago; it is given out once."""
        user_id = arguments.user.id
        if user_id not in self._entries and user_id not in self._queued:
            return None
        with self._lock:
            self._queued.pop(user_id, None)  # whoever asks in earnest has no use for it any more
            entry = self._entries.pop(user_id, None)
        age_s = 0.0 if entry is None else time.monotonic() - entry.requested_at
        if entry is None or age_s > PREFETCH_TTL_S or entry.prefetched.version != version or entry.key != arguments.key:
            return None
        with self._lock:
            self.hits += 1
        result = entry.prefetched.result
        return replace(result, trace={**result.trace, "prefetched": {"ageMs": round(age_s * 1e3, 3)}})

    def discard(self, user: User) -> None:
        """Let go of what is there for a caller, and of what is still to be asked."""
        with self._lock:
            self._queued.pop(user.id, None)
            self._entries.pop(user.id, None)

    def close(self) -> None:
        """Ask nothing any more, and wait for what is under way."""
        with self._lock:
            self._is_closed = True
            self._queued.clear()
            self._entries.clear()
            self._lock.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join(2 * PREFETCH_TIMEOUT_S)

    def reset_after_fork(self) -> None:
        """After a fork, in the child: what is under way is the parent's."""
        self._reset()

    def _run_worker(self) -> None:
        try:
            while (arguments := self._wait_for_search()) is not None:
                self._run_search(arguments)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _run_search(self, arguments: SearchArguments) -> None:
        requested_at = time.monotonic()
        entry = None
        try:
            entry = _PrefetchEntry(arguments.key, self._search(arguments), requested_at)
        except MemoAirVoiceMemoryError as error:
            log.info("a recall ahead came to nothing: action=prefetch_failed code=%s", error.code)
        finally:
            self._finish(arguments, entry)

    def _wait_for_search(self) -> SearchArguments | None:
        linger_until, has_lingered = time.monotonic() + LINGER_S, False
        with self._lock:
            while not self._is_closed:
                for user_id in self._queued:
                    if user_id not in self._running:
                        self._running.add(user_id)
                        return self._queued.pop(user_id)
                if has_lingered:
                    break
                has_lingered = not self._lock.wait(linger_until - time.monotonic())
            self._threads.discard(threading.current_thread())
            return None

    def _finish(self, arguments: SearchArguments, entry: _PrefetchEntry | None) -> None:
        expired_before = time.monotonic() - PREFETCH_TTL_S
        with self._lock:
            self._running.discard(arguments.user.id)
            self._entries = {
                user_id: kept for user_id, kept in self._entries.items() if kept.requested_at > expired_before
            }
            if entry is not None and not entry.prefetched.result.trace.get("degraded") and not self._is_closed:
                self._entries[arguments.user.id] = entry


def memory_version(handle: RuntimeHandle) -> object:
    """What a caller's answers depend on beside his question, as far as this client knows."""
    return handle, handle.session_id, handle.version
