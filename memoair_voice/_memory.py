"""One caller's memory, awaited."""

from types import TracebackType
from typing import TYPE_CHECKING, Any

from memoair_voice._threads import async_method, with_signature_of
from memoair_voice._tool import AsyncToolAdapters
from memoair_voice_sync import MemoAirVoiceMemorySync

if TYPE_CHECKING:
    from typing_extensions import Self


class MemoAirVoiceMemory(AsyncToolAdapters):
    """`MemoAirVoiceMemorySync` for asyncio and trio: the same arguments, methods and errors, awaited.

    A search that is cancelled is given up at once. A save, a start or an end that is cancelled still happens; the
    cancellation comes after it. Use it in an ``async with`` block, or await `aclose`.
    """

    _sync: MemoAirVoiceMemorySync

    @with_signature_of(MemoAirVoiceMemorySync.__init__)
    def __init__(self, **arguments: Any) -> None:
        self._sync = MemoAirVoiceMemorySync(**arguments)

    def __repr__(self) -> str:
        return f"<MemoAirVoiceMemory {self._sync!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session (the call) that this object speaks for."""
        return self._sync.session_id

    @property
    def runtime_pid(self) -> int | None:
        """The process id of the runtime, where it was started here and lives."""
        return self._sync.runtime_pid

    runtime_url = async_method(MemoAirVoiceMemorySync.runtime_url)
    start_session = async_method(MemoAirVoiceMemorySync.start_session)
    end_session = async_method(MemoAirVoiceMemorySync.end_session)
    search_memory = async_method(MemoAirVoiceMemorySync.search_memory, abandon_on_cancel=True)
    after_turn = async_method(MemoAirVoiceMemorySync.after_turn)
    flush = async_method(MemoAirVoiceMemorySync.flush)
    aclose = async_method(MemoAirVoiceMemorySync.close)

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
