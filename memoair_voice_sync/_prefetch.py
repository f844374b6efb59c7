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
from memoair_voice_sync._handle import CLOSED, RuntimeHandle
from memoair_voice_sync._log import log
from memoair_voice_sync._results import SearchResult
from memoair_voice_sync._user import User

# Between the last words that a recogniser guesses and those that it settles on lie some hundred milliseconds.
FRESH_S = 5.0
# How long a recall ahead may take, the start of a runtime included.
PATIENCE_S = 1.0
_MOST_THREADS = 8
# The next guess of a recogniser comes soon, and to start a thread takes longer than to wake one.
LINGER_S = 2.0
# Punctuation that is part of a word: of a number between two digits, of any other between two letters.
_WITHIN = {**dict.fromkeys(".,:", str.isdigit), "'": str.isalpha}
_SPEAKS = frozenset("%&@#")  # "50 %" is not "50"


def spoken(text: str) -> str:
    """The words of a text, as a voice says them: without case, punctuation and the width of spaces.

    What is no more than that apart makes no difference to recall, and a recogniser adds it only at the end.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    around = f" {folded} "
    kept = [sign if _is_spoken(sign, around[place], around[place + 2]) else " " for place, sign in enumerate(folded)]
    return " ".join("".join(kept).split())


def _is_spoken(sign: str, before: str, after: str) -> bool:
    is_part = _WITHIN.get(sign)
    if is_part is not None:
        return is_part(before) and is_part(after)
    return sign in _SPEAKS or not unicodedata.category(sign).startswith("P")


@attrs.frozen(slots=False)
class SearchOptions:
    """Who asks what, and how: the arguments of a search but its deadline."""

    user: User = attrs.field(repr=False)
    query: str = attrs.field(repr=False)
    options: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def of(cls, user: User, query: str, **options: Any) -> "SearchOptions":
        """Check how something is asked: ``lanes``, ``intent``, ``top_k``, ``filter``."""
        lanes, top_k, wanted = options["lanes"], options["top_k"], options["filter"]
        checked = {
            "lanes": check.lanes(lanes),
            "intent": check.text("intent", options["intent"]),
            "top_k": None if top_k is None else check.json_mapping("top_k", top_k),
            "filter": None if wanted is None else check.json_mapping("filter", wanted),
        }
        return cls(user, query, checked)

    @cached_property
    def key(self) -> tuple[str, str]:
        """The same for questions that have the same answer as long as nothing changes."""
        return spoken(self.query), json.dumps([self.user.fields, self.options], default=repr)


@attrs.frozen
class PrefetchedResult:
    """An answer, and the state of the caller's memory that it is from."""

    state: object
    result: SearchResult = attrs.field(repr=False)


@attrs.frozen
class _Kept:
    key: tuple[str, str] = attrs.field(repr=False)
    ahead: PrefetchedResult
    asked_at: float


class PrefetchCache:
    """Recalls ahead for each caller, in a few threads that end when there is nothing to do. For any thread.

    Of what is asked for one caller while another question of his is under way, the latest is asked next and the rest
    never.
    """

    def __init__(self, recall: Callable[[SearchOptions], PrefetchedResult]) -> None:
        """``recall`` asks, within `PATIENCE_S`."""
        self._recall = recall
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Condition()
        self._waiting: dict[str, SearchOptions] = {}  # by caller
        self._busy: set[str] = set()  # callers whose question is under way
        self._kept: dict[str, _Kept] = {}
        self._threads: set[threading.Thread] = set()
        self._is_closed = False
        self.used = 0

    def ask(self, question: SearchOptions) -> None:
        """Ask behind the caller's back, and return at once. Raises ``pool.closed`` after the end."""
        with self._lock:
            if self._is_closed:
                raise MemoAirVoiceMemoryError("pool.closed", CLOSED)
            self._waiting[question.user.id] = question
            free = len(self._threads) - len(self._busy)
            if free >= len(self._waiting.keys() - self._busy) or len(self._threads) >= _MOST_THREADS:
                self._lock.notify()  # a thread that is idle, or one that is at work, comes to it
                return
            thread = threading.Thread(target=self._work, name="memoair-prefetch", daemon=True)
            try:
                thread.start()  # it waits for the lock
            except RuntimeError:  # the process is at its limit, or ends: then there is no recall ahead
                self._waiting.pop(question.user.id)
                return
            self._threads.add(thread)

    def take(self, question: SearchOptions, state: object) -> SearchResult | None:
        """The answer, if just this was asked, of the memory in this state, a moment ago; it is given out once."""
        user_id = question.user.id
        if user_id not in self._kept and user_id not in self._waiting:
            return None
        with self._lock:
            self._waiting.pop(user_id, None)  # whoever asks in earnest has no use for it any more
            kept = self._kept.pop(user_id, None)
        age_s = 0.0 if kept is None else time.monotonic() - kept.asked_at
        if kept is None or age_s > FRESH_S or kept.ahead.state != state or kept.key != question.key:
            return None
        with self._lock:
            self.used += 1
        found = kept.ahead.result
        return replace(found, trace={**found.trace, "prefetched": {"ageMs": round(age_s * 1e3, 3)}})

    def drop(self, user: User) -> None:
        """Let go of what is there for a caller, and of what is still to be asked."""
        with self._lock:
            self._waiting.pop(user.id, None)
            self._kept.pop(user.id, None)

    def close(self) -> None:
        """Ask nothing any more, and wait for what is under way."""
        with self._lock:
            self._is_closed = True
            self._waiting.clear()
            self._kept.clear()
            self._lock.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join(2 * PATIENCE_S)

    def forget(self) -> None:
        """After a fork, in the child: what is under way is the parent's."""
        self._begin()

    def _work(self) -> None:
        try:
            while (question := self._next()) is not None:
                self._ask(question)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _ask(self, question: SearchOptions) -> None:
        asked_at = time.monotonic()
        kept = None
        try:
            kept = _Kept(question.key, self._recall(question), asked_at)
        except MemoAirVoiceMemoryError as error:
            log.info("a recall ahead came to nothing: action=prefetch_failed code=%s", error.code)
        finally:
            self._done(question, kept)

    def _next(self) -> SearchOptions | None:
        ends_at, is_over = time.monotonic() + LINGER_S, False
        with self._lock:
            while not self._is_closed:
                for user_id in self._waiting:
                    if user_id not in self._busy:
                        self._busy.add(user_id)
                        return self._waiting.pop(user_id)
                if is_over:
                    break
                is_over = not self._lock.wait(ends_at - time.monotonic())
            self._threads.discard(threading.current_thread())
            return None

    def _done(self, question: SearchOptions, kept: _Kept | None) -> None:
        oldest = time.monotonic() - FRESH_S
        with self._lock:
            self._busy.discard(question.user.id)
            self._kept = {user_id: each for user_id, each in self._kept.items() if each.asked_at > oldest}
            if kept is not None and not kept.ahead.result.trace.get("degraded") and not self._is_closed:
                self._kept[question.user.id] = kept


def state_of(handle: RuntimeHandle) -> object:
    """What a caller's answers depend on beside his question, as far as this client knows."""
    return handle, handle.session_id, handle.changes
