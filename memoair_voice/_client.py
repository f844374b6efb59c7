"""Memory for many concurrent users, for asyncio and trio."""

from typing import TYPE_CHECKING, Any

from memoair_voice._threads import AsyncCloseable, async_method, with_signature_of
from memoair_voice._tool import AsyncToolAdapters, MemoryTool
from memoair_voice_sync import MemoAirVoiceClientSync, Prompt, VoiceSessionSync

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class VoiceSession(AsyncToolAdapters, AsyncCloseable):
    """One call of a user: the methods of `MemoAirVoiceClient` for it.

    The user's runtime is not evicted while the session is open. Use it in an ``async with`` block, or await `aclose`.

    Example:
        ```python
        async with await client.session(user={"id": "caller_42"}) as call:
            result = await call.search_memory("Where is my parcel?")
            await call.save_response(user_text="Where is my parcel?", assistant_text="In Leeds.")
        ```
    """

    _sync: VoiceSessionSync

    def __init__(self, sync: VoiceSessionSync) -> None:
        self._sync = sync

    async def __aenter__(self) -> "Self":
        await self.open()
        return self

    def __repr__(self) -> str:
        return f"<VoiceSession session={self.session_id!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session (the call)."""
        return self._sync.session_id

    open = async_method(VoiceSessionSync.open)
    search_memory = async_method(VoiceSessionSync.search_memory, abandon_on_cancel=True)
    prefetch = async_method(VoiceSessionSync.prefetch)
    save_response = async_method(VoiceSessionSync.save_response)
    aclose = async_method(VoiceSessionSync.close)


class MemoAirVoiceClient(AsyncCloseable):
    """Memory for all callers of one voice agent, for asyncio and trio.

    The same arguments, methods and errors as `MemoAirVoiceClientSync`, awaited. Each call runs in a worker thread, so
    that the event loop is never blocked. Create one client per process, pass ``user={"id", "name", "metadata"}`` with
    every call, and use the client in an ``async with`` block, or await `aclose` at the end.

    A cancelled search is abandoned immediately, and its place in the pool is released when its time is over. A
    cancelled save still happens, and the cancellation is raised after it.

    Example:
        ```python
        user = {"id": "caller_42", "name": "Alex"}
        async with MemoAirVoiceClient(api_key="...", project_id="proj_acme", agent_id="agent_returns") as client:
            await client.load_index(user=user)
            result = await client.search_memory("Where is my parcel?", user=user)
            answer = "In Leeds."  # from a language model that is given result.contextText
            await client.save_response(user=user, user_text="Where is my parcel?", assistant_text=answer)
        ```
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
    prompt = async_method(MemoAirVoiceClientSync.prompt, abandon_on_cancel=True)
    report_outcome = async_method(MemoAirVoiceClientSync.report_outcome)
    load_index = async_method(MemoAirVoiceClientSync.load_index)
    end_call = async_method(MemoAirVoiceClientSync.end_call)
    create_index = async_method(MemoAirVoiceClientSync.create_index)
    list_indexes = async_method(MemoAirVoiceClientSync.list_indexes)
    get_index = async_method(MemoAirVoiceClientSync.get_index)
    delete_index = async_method(MemoAirVoiceClientSync.delete_index)
    delete_document = async_method(MemoAirVoiceClientSync.delete_document)
    forget_user = async_method(MemoAirVoiceClientSync.forget_user)
    export_user = async_method(MemoAirVoiceClientSync.export_user)
    hold_user = async_method(MemoAirVoiceClientSync.hold_user)
    lift_hold = async_method(MemoAirVoiceClientSync.lift_hold)
    list_holds = async_method(MemoAirVoiceClientSync.list_holds)
    list_memories = async_method(MemoAirVoiceClientSync.list_memories)
    update_memory = async_method(MemoAirVoiceClientSync.update_memory)
    delete_memory = async_method(MemoAirVoiceClientSync.delete_memory)
    memory_history = async_method(MemoAirVoiceClientSync.memory_history)
    warm_up = async_method(MemoAirVoiceClientSync.warm_up)
    stats = async_method(MemoAirVoiceClientSync.stats)
    aclose = async_method(MemoAirVoiceClientSync.close)

    def search_memory_tool(
        self,
        *,
        user: "Mapping[str, Any] | None" = None,
        user_id: str | None = None,
        search_memory_timeout_ms: float | None = None,
        session_id: str | None = None,
    ) -> MemoryTool:
        """Return a tool with which a language model can search a user's memory.

        `session` offers the tool in the formats of the agent frameworks.

        Args:
            user: The user who calls, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            search_memory_timeout_ms: The time that a search may take, in milliseconds. None means the default.
            session_id: The id of the call, as in `search_memory`.

        Returns:
            The tool. If the memory fails, it returns an empty text, and its ``last_trace`` says why.
        """
        return MemoryTool(
            self._sync.search_memory_tool(
                user=user, user_id=user_id, search_memory_timeout_ms=search_memory_timeout_ms, session_id=session_id
            )
        )

    async def session(
        self,
        *,
        user: "Mapping[str, Any] | None" = None,
        user_id: str | None = None,
        session_id: str | None = None,
        metadata: "Mapping[str, Any] | None" = None,
        prompt: Prompt | None = None,
    ) -> VoiceSession:
        """Return a session: one call of a user, whose runtime is not evicted while the call goes on.

        Entering its ``async with`` block opens the call and waits until the user's memory is loaded, for five seconds
        at most. Leaving the block ends the call, and the cloud learns from it at once.

        Args:
            user: The user who calls, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            session_id: The id of the call, for example that of the telephone platform. The same id in another process
                or on another machine goes on with the call. None makes a new id.
            metadata: A JSON object that is stored with the call.
            prompt: The prompt that the agent has in this call, as `prompt` returns it. Its version and label are stored
                with the call; its text is not.

        Returns:
            A session with the same methods for this user and call. Use it in an ``async with`` block, or await its
            ``aclose``.

        Raises:
            MemoAirVoiceMemoryError: ``pool.exhausted`` or ``pool.closed``.
        """
        return VoiceSession(
            self._sync.session(user=user, user_id=user_id, session_id=session_id, metadata=metadata, prompt=prompt)
        )
