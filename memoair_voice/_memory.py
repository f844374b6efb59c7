"""The memory of one user, for asyncio and trio."""

from typing import Any

from memoair_voice._threads import AsyncCloseable, async_method, with_signature_of
from memoair_voice._tool import AsyncToolAdapters
from memoair_voice_sync import MemoAirVoiceMemorySync


class MemoAirVoiceMemory(AsyncToolAdapters, AsyncCloseable):
    """The memory of one user of one project, for asyncio and trio, over a runtime on this machine.

    The same arguments, methods and errors as `MemoAirVoiceMemorySync`, awaited. Each call runs in a worker thread, so
    that the event loop is never blocked. Use the memory in an ``async with`` block, or await `aclose`.

    A cancelled search is abandoned immediately. A cancelled save, start or end still happens, and the cancellation is
    raised after it.

    Example:
        ```python
        async with MemoAirVoiceMemory(project_id="proj_acme", user_id="caller_42") as memory:
            await memory.start_session({"user": {"id": "caller_42", "name": "Alex"}})
            await memory.after_turn("Where is my parcel?", "In Leeds.", turn_id="turn-1")
            print((await memory.search_memory("parcel")).contextText)
        ```
    """

    _sync: MemoAirVoiceMemorySync

    @with_signature_of(MemoAirVoiceMemorySync.__init__)
    def __init__(self, **arguments: Any) -> None:
        self._sync = MemoAirVoiceMemorySync(**arguments)

    def __repr__(self) -> str:
        return f"<MemoAirVoiceMemory {self._sync!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session (the call)."""
        return self._sync.session_id

    @property
    def runtime_pid(self) -> int | None:
        """The process id of the runtime, or None if it was not started here or is not running."""
        return self._sync.runtime_pid

    runtime_url = async_method(MemoAirVoiceMemorySync.runtime_url)
    prompt = async_method(MemoAirVoiceMemorySync.prompt, abandon_on_cancel=True)
    start_session = async_method(MemoAirVoiceMemorySync.start_session)
    end_session = async_method(MemoAirVoiceMemorySync.end_session)
    search_memory = async_method(MemoAirVoiceMemorySync.search_memory, abandon_on_cancel=True)
    after_turn = async_method(MemoAirVoiceMemorySync.after_turn)
    flush = async_method(MemoAirVoiceMemorySync.flush)
    aclose = async_method(MemoAirVoiceMemorySync.close)
