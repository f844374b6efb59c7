"""The prompts of one agent: from memory and the disk at once, from the cloud in the background."""

import logging
import threading
import time
from typing import Any

import attrs

from memoair_protocol.backoff import Backoff
from memoair_protocol.errors import ERROR_CODES
from memoair_protocol.keyed_queue import KeyedQueue
from memoair_voice_sync._after_fork import register_after_fork
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._cloud.api import CloudApi
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._prompts.fetching import FetchFailedError, fetch_prompt
from memoair_voice_sync._prompts.prompt_file import FetchedPrompt, PromptFiles, WantedPrompt
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# A client asks for one label or two. What waits is the first call of each, which is what threads are for.
_MAX_THREADS = 2
# The timeouts of a request (see `CLOUD_TIMEOUTS_S`) and a moment: a thread is not left behind.
_JOIN_TIMEOUT_S = 6.0
# To connect, and to wait for the next bytes of a reply. A caller never waits for that; see `PromptStore.get`.
CLOUD_TIMEOUTS_S = 2.0, 3.0
_BACKOFF = Backoff(1.0, 30.0, jitter=0.5)
# Without any text to go on with, the cloud is asked again sooner.
_MAX_EMPTY_PAUSE_S = 1.0
_MAX_RETRY_AFTER_S = 300.0
# Beyond that, the prompt that was asked for first is read from the disk again. An agent has a few labels.
_MAX_ENTRIES = 64


@attrs.define(eq=False)
class _PromptEntry:
    """What is known of one label or version. The lock of the store must be held to change it."""

    prompt: FetchedPrompt | None = None
    failures: int = 0  # in a row
    error: MemoAirVoiceMemoryError | None = None  # of the last attempt
    failed_at: float = 0.0  # in monotonic seconds
    pause_s: float = 0.0  # how long the cloud is not asked again after that


class PromptStore:
    """The prompts of one agent, whose id is ``agent_id``. Safe to use from any thread; processes share the files.

    Args:
        cloud: Fetches prompts. It makes one attempt at a time, because this decides when to ask again.
        files: Keeps them.
        fresh_s: How long a text is used without asking the cloud whether its label has moved, in seconds.
    """

    def __init__(self, cloud: CloudApi, files: PromptFiles, fresh_s: float) -> None:
        self._cloud = cloud
        self._files = files
        self._fresh_s = fresh_s
        self._queue: KeyedQueue[WantedPrompt] = KeyedQueue(self._fetch, name="memoair-prompt", max_threads=_MAX_THREADS)
        self.agent_id = cloud.agent_id
        self._entries: dict[WantedPrompt, _PromptEntry] = {}
        self._is_closed = False
        self._lock = threading.Lock()  # held while an entry is read or changed
        register_after_fork(self, PromptStore._reset_after_fork)

    def get(self, key: WantedPrompt, timeout_s: float) -> tuple[FetchedPrompt, bool]:
        """Return a prompt, and whether it is stale: older than is fresh, and not confirmed by the cloud since.

        A prompt that is known is returned at once. If it is stale, the cloud is asked in the background.

        Args:
            key: What to return.
            timeout_s: How long to wait for the cloud if nothing is known, in seconds.

        Raises:
            MemoAirVoiceMemoryError: Nothing is known, and the cloud fails: ``cloud.timeout``, ``cloud.unreachable``,
                ``cloud.not_found``, or another error of the cloud. Or ``pool.closed``.
        """
        deadline = time.monotonic() + timeout_s
        if self._is_closed:
            raise closed_error()
        prompt = self._find(key)
        if prompt is not None and self._is_fresh(key, prompt):
            return prompt, False
        if not self._cloud.is_configured:
            raise MemoAirVoiceMemoryError("cloud.unreachable", "this client has no cloud that could have a prompt")
        self._ask(key, has_text=prompt is not None)
        if prompt is not None:
            return prompt, True
        is_done = self._queue.wait_until_done(key, max(0.001, deadline - time.monotonic()))
        with self._lock:
            entry = self._entries.get(key, _PromptEntry())
            prompt, error = entry.prompt, entry.error
        if prompt is not None:
            return prompt, not self._is_fresh(key, prompt)
        if self._is_closed:
            raise closed_error()
        if error is None or not is_done:
            message = f"the prompt ({key}) is not on this machine, and the cloud did not answer in time"
            raise MemoAirVoiceMemoryError("cloud.timeout", message)
        message = f"the prompt ({key}) is not on this machine: {error.message}"
        raise MemoAirVoiceMemoryError(error.code, message, error.status_code, error.details) from error

    def peek(self, key: WantedPrompt) -> FetchedPrompt | None:
        """Return what is known on this machine, without asking the cloud."""
        return self._find(key)

    def stats(self) -> list[dict[str, Any]]:
        """Return the state of each prompt that was asked for."""
        with self._lock:
            entries = list(self._entries.items())
        now = time.time()
        return [
            {
                "label": key.label,
                "version": None if entry.prompt is None else entry.prompt.version,
                "age_s": None if entry.prompt is None else max(0.0, now - entry.prompt.checked_at),
                "is_stale": entry.prompt is None or not self._is_fresh(key, entry.prompt),
                "failures": entry.failures,
                "error": None if entry.error is None else entry.error.code,
            }
            for key, entry in entries
        ]

    def close(self) -> None:
        """Ask the cloud no more, and wait for a request in progress. Calling it again has no effect."""
        self._is_closed = True
        self._queue.close(join_timeout_s=_JOIN_TIMEOUT_S)
        self._cloud.close()

    def _reset_after_fork(self) -> None:
        self._queue.reset_after_fork()
        self._cloud.reset_after_fork()
        self._lock = threading.Lock()

    def _find(self, key: WantedPrompt) -> FetchedPrompt | None:
        """Return the latest of what is in memory and, unless that is fresh, on the disk: another process may ask."""
        with self._lock:
            known = self._entries[key].prompt if key in self._entries else None
        if known is not None and self._is_fresh(key, known):
            return known
        found = self._files.read(key) if self._cloud.is_configured else None
        if found is None or (known is not None and min(known.checked_at, time.time()) >= found.checked_at):
            return known
        with self._lock:
            self._entry(key).prompt = found
        return found

    def _is_fresh(self, key: WantedPrompt, prompt: FetchedPrompt) -> bool:
        """Return whether a prompt need not be confirmed. A version never changes; a clock may have been set back."""
        return key.version is not None or 0 <= time.time() - prompt.checked_at < self._fresh_s

    def _ask(self, key: WantedPrompt, *, has_text: bool) -> None:
        """Have the cloud asked in the background, unless it is being asked, or has failed a moment ago."""
        if key in self._queue:
            self._queue.wake()  # there may have been no thread for it
            return
        with self._lock:
            entry = self._entry(key)
            pause_s = entry.pause_s if has_text else min(entry.pause_s, _MAX_EMPTY_PAUSE_S)
            if time.monotonic() < entry.failed_at + pause_s:
                return
        self._queue.put(key, key)

    def _fetch(self, key: WantedPrompt) -> None:
        """Ask the cloud for a prompt; called in a thread of the queue."""
        known, asked_at = self._find(key), time.time()
        try:
            found = fetch_prompt(self._cloud, key, known, asked_at)
        except FetchFailedError as failure:
            self._note_failure(key, failure)
            return
        with self._lock:
            entry = self._entry(key)
            has_recovered, changed = entry.failures > 0, entry.prompt is None or entry.prompt.version != found.version
            entry.prompt, entry.failures, entry.error, entry.pause_s = found, 0, None, 0.0
        if has_recovered:
            log.info("a prompt could be fetched again: action=prompt_fetched %s version=%d", key, found.version)
        elif changed:
            log.debug("a prompt was fetched: action=prompt_fetched %s version=%d", key, found.version)
        self._files.write(key, found)

    def _note_failure(self, key: WantedPrompt, failure: FetchFailedError) -> None:
        with self._lock:
            entry = self._entry(key)
            is_new = entry.error is None or entry.error.code != failure.error.code
            entry.failures, entry.error, entry.failed_at = entry.failures + 1, failure.error, time.monotonic()
            retry_after_s = min(failure.retry_after_s, _MAX_RETRY_AFTER_S)
            entry.pause_s = _BACKOFF.pause_s(entry.failures, retry_after_s=retry_after_s)
            version = None if entry.prompt is None else entry.prompt.version
        if is_new and not self._is_closed:
            # A cloud that is away is expected to come back. What it refuses stays so until it is corrected.
            code = ERROR_CODES.get(failure.error.code)
            level = logging.WARNING if code is not None and code.is_transient else logging.ERROR
            message = "a prompt could not be fetched, and version %s of it is used: action=prompt_failed code=%s %s"
            log.log(level, message, version or "none", failure.error.code, key)

    def _entry(self, key: WantedPrompt) -> _PromptEntry:
        """Return the entry of a key; the lock must be held."""
        entry = self._entries.get(key)
        if entry is None:
            while len(self._entries) >= _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
            entry = self._entries[key] = _PromptEntry()
        return entry
