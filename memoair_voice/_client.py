"""Memory for many callers at once, awaited."""

from types import TracebackType
from typing import TYPE_CHECKING, Any

from memoair_voice._threads import async_method, with_signature_of
from memoair_voice._tool import AsyncToolAdapters, MemoryTool
from memoair_voice_sync import MemoAirVoiceClientSync, VoiceSessionSync

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class VoiceSession(AsyncToolAdapters):
    """`VoiceSessionSync`, awaited: one caller's runtime, pinned for many calls."""

    _sync: VoiceSessionSync

    def __init__(self, sync: VoiceSessionSync) -> None:
        self._sync = sync

    search_memory = async_method(VoiceSessionSync.search_memory, abandon_on_cancel=True)
    prefetch = async_method(VoiceSessionSync.prefetch)
    save_response = async_method(VoiceSessionSync.save_response)
    aclose = async_method(VoiceSessionSync.close)

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class MemoAirVoiceClient:
    """`MemoAirVoiceClientSync` for asyncio and trio: the same arguments, methods and errors, awaited.

    A search that is cancelled is given up at once, and gives its place in the pool back when its time is over. A save
    that is cancelled still happens; the cancellation comes after it. Use it in an ``async with`` block, or await
    `aclose`.
    """

    @with_signature_of(MemoAirVoiceClientSync.__init__)
    def __init__(self, **arguments: Any) -> None:
        self._sync = MemoAirVoiceClientSync(**arguments)

    def __repr__(self) -> str:
        return f"<MemoAirVoiceClient {self._sync!r}>"

    search_memory = async_method(MemoAirVoiceClientSync.search_memory, abandon_on_cancel=True)
    prefetch = async_method(MemoAirVoiceClientSync.prefetch)
    save_response = async_method(MemoAirVoiceClientSync.save_response)
    import_call = async_method(MemoAirVoiceClientSync.import_call)
    load_index = async_method(MemoAirVoiceClientSync.load_index)
    create_index = async_method(MemoAirVoiceClientSync.create_index)
    list_indexes = async_method(MemoAirVoiceClientSync.list_indexes)
    get_index = async_method(MemoAirVoiceClientSync.get_index)
    delete_index = async_method(MemoAirVoiceClientSync.delete_index)
    delete_document = async_method(MemoAirVoiceClientSync.delete_document)
    forget_user = async_method(MemoAirVoiceClientSync.forget_user)
    list_memories = async_method(MemoAirVoiceClientSync.list_memories)
    update_memory = async_method(MemoAirVoiceClientSync.update_memory)
    delete_memory = async_method(MemoAirVoiceClientSync.delete_memory)
    memory_history = async_method(MemoAirVoiceClientSync.memory_history)
    stats = async_method(MemoAirVoiceClientSync.stats)
    aclose = async_method(MemoAirVoiceClientSync.close)

    def search_memory_tool(
        self,
        *,
        user: "Mapping[str, Any] | None" = None,
        user_id: str | None = None,
        search_memory_timeout_ms: float | None = None,
    ) -> MemoryTool:
        """Return a tool that a language model can be given to search a caller's memory; `session` has all shapes."""
        timeout_ms = search_memory_timeout_ms
        return MemoryTool(
            self._sync.search_memory_tool(user=user, user_id=user_id, search_memory_timeout_ms=timeout_ms)
        )

    async def session(self, *, user: "Mapping[str, Any] | None" = None, user_id: str | None = None) -> VoiceSession:
        """Pin a caller's runtime for many calls: use the session in an ``async with`` block, or await its `aclose`."""
        return VoiceSession(self._sync.session(user=user, user_id=user_id))

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
