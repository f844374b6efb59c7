"""A session: one call of a user."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import memoair_voice_sync._arguments as check
from memoair_protocol.defaults import SEARCH_TIMEOUT_MS
from memoair_protocol.enums import RecallOrigin
from memoair_voice_sync._closing import Closeable
from memoair_voice_sync._tools.tool import DEFAULT_INTENT, MemoryToolSync
from memoair_voice_sync._tools.tool_shapes import ToolAdapters
from memoair_voice_sync.results import SearchResult

if TYPE_CHECKING:
    from typing_extensions import Self


class VoiceSessionSync(ToolAdapters, Closeable):
    """One call of a user: the methods of `MemoAirVoiceClientSync` for it.

    The user's runtime is not evicted while the session is open. Safe to use from any thread. Use it in a ``with``
    block, or call `close`.

    Example:
        ```python
        with client.session(user={"id": "caller_42"}) as call:
            result = call.search_memory("Where is my parcel?")
            call.save_response(user_text="Where is my parcel?", assistant_text="In Leeds.")
        ```
    """

    def __init__(
        self,
        session_id: str,
        *,
        open_call: Callable[[], None],
        search: Callable[..., SearchResult],
        prefetch: Callable[..., None],
        save: Callable[..., str | None],
        close_call: Callable[[], None],
    ) -> None:
        self._session_id = session_id
        self._open_call = open_call
        self._search = search
        self._prefetch = prefetch
        self._save = save
        self._close_call = close_call
        self._close_lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> "Self":
        self.open()
        return self

    def __repr__(self) -> str:
        return f"<VoiceSessionSync session={self._session_id!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session (the call)."""
        return self._session_id

    def open(self) -> None:
        """Open the call, and wait until the user's memory is loaded; entering a ``with`` block does so.

        This takes five seconds at most. If the memory is not ready by then, a warning is logged, and the call goes on
        without waiting. Calling it again has no effect but to wait.

        Raises:
            MemoAirVoiceMemoryError: ``pool.port_exhausted`` or ``pool.closed``.
        """
        self._open_call()

    def search_memory(
        self,
        query: str,
        *,
        lanes: Sequence[str] | None = None,
        intent: str = DEFAULT_INTENT,
        top_k: Mapping[str, int] | None = None,
        timeout_ms: float = SEARCH_TIMEOUT_MS,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
        min_confidence: float | None = None,
        say_nothing_found: bool = False,
        turn_id: str | None = None,
        origin: str = RecallOrigin.API.value,
    ) -> SearchResult:
        """Search the user's memory; see `MemoAirVoiceClientSync.search_memory`.

        Args:
            query: What to search for, usually what the caller has just said.
            lanes: The lanes to search: ``profile``, ``working``, ``permanent``, ``org``. None means all.
            intent: What the result is for: ``answer_current_user``; ``summarise_recent``, which brings the last turns
                first; ``earlier_in_call``, which brings what matches in this call and then the rest of it; or
                ``fallback``.
            top_k: The largest number of hits per lane, such as ``{"org": 2}``.
            timeout_ms: The time within which this returns, in milliseconds.
            filter: A condition on the metadata of hits in the ``permanent`` and ``org`` lanes.
            min_confidence: Leave out hits of less confidence, from 0 to 1, in the ``permanent`` and ``org`` lanes. None
                means none is left out.
            say_nothing_found: Whether the text says so of a lane that was searched and has found nothing.
            turn_id: The id that the turn will be saved with, as in `MemoAirVoiceClientSync.search_memory`.
            origin: Who asks: ``api``, ``tool``, ``hook`` or ``framework``.

        Returns:
            The hits of each lane, and the text composed from them. Empty and ``degraded`` if the memory fails.

        Raises:
            MemoAirVoiceMemoryError: ``pool.port_exhausted``, ``pool.closed`` or ``runtime.bad_request``.
        """
        return self._search(
            query,
            lanes=lanes,
            intent=intent,
            top_k=top_k,
            timeout_ms=timeout_ms,
            filter=filter,
            min_confidence=min_confidence,
            say_nothing_found=say_nothing_found,
            turn_id=turn_id,
            origin=origin,
        )

    def prefetch(
        self,
        query_so_far: str,
        *,
        lanes: Sequence[str] | None = None,
        intent: str = DEFAULT_INTENT,
        top_k: Mapping[str, int] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
        min_confidence: float | None = None,
        say_nothing_found: bool = False,
    ) -> None:
        """Start a search in the background, and return immediately; see `MemoAirVoiceClientSync.prefetch`.

        Args:
            query_so_far: What the caller has said so far.
            lanes: The lanes to search, as in `search_memory`.
            intent: What the result is for, as in `search_memory`.
            top_k: The largest number of hits per lane, as in `search_memory`.
            filter: A condition on metadata, as in `search_memory`.
            min_confidence: The least confidence of a hit, as in `search_memory`.
            say_nothing_found: Whether the text says that a lane has found nothing, as in `search_memory`.

        Raises:
            MemoAirVoiceMemoryError: ``pool.closed``.
        """
        self._prefetch(
            query_so_far,
            lanes=lanes,
            intent=intent,
            top_k=top_k,
            filter=filter,
            min_confidence=min_confidence,
            say_nothing_found=say_nothing_found,
        )

    def save_response(
        self,
        *,
        user_text: str,
        assistant_text: str,
        turn_id: str | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str | None:
        """Save a completed turn; see `MemoAirVoiceClientSync.save_response`.

        Args:
            user_text: What the caller said.
            assistant_text: What the agent answered, in full even if the caller interrupted it.
            turn_id: The id of the turn within its call. The same id with the same words is not saved again; other words
                correct the turn. None makes a new id.
            tool_calls: The tools that the agent called, as JSON objects.
            metadata: A JSON object that is stored with the turn, such as ``heard`` and ``occurredAt``.

        Returns:
            The turn's ``localEventId``, or None if the turn is on the disk and saved later or, with ``org_only``, not
            at all.

        Raises:
            MemoAirVoiceMemoryError: The turn is not saved, see `MemoAirVoiceClientSync.save_response`.
        """
        return self._save(
            user_text=user_text,
            assistant_text=assistant_text,
            turn_id=turn_id,
            tool_calls=tool_calls,
            metadata=metadata,
        )

    def search_memory_tool(self, *, search_memory_timeout_ms: float | None = None) -> MemoryToolSync:
        """Return a tool with which a language model can search this user's memory.

        Args:
            search_memory_timeout_ms: The time that a search may take, in milliseconds. None means the default.

        Returns:
            The tool. If the memory fails, it returns an empty text, and its ``last_trace`` says why.
        """
        return make_tool(self.search_memory, search_memory_timeout_ms)

    def close(self) -> None:
        """End the call, and unpin the runtime. Calling it again has no effect.

        A turn that is saved later is kept in the call, which stays ended.
        """
        with self._close_lock:
            if not self._is_closed:
                self._is_closed = True
                self._close_call()


def make_tool(search: Callable[..., SearchResult], search_memory_timeout_ms: float | None) -> MemoryToolSync:
    """Return the tool for a search function of one user. A timeout of None means the default."""
    timeout_ms = SEARCH_TIMEOUT_MS if search_memory_timeout_ms is None else search_memory_timeout_ms
    check.seconds("search_memory_timeout_ms", timeout_ms, 1e-3)
    return MemoryToolSync(partial(_search_for_tool, search, timeout_ms))


def _search_for_tool(search: Callable[..., SearchResult], timeout_ms: float, query: str, intent: str) -> SearchResult:
    return search(query, intent=intent, timeout_ms=timeout_ms, origin=RecallOrigin.TOOL.value)
