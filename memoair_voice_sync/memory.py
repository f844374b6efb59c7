"""The memory of one user, without a pool."""

import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import urllib3

import memoair_voice_sync._arguments as check
from memoair_protocol.defaults import CLOUD_BASE_URL, ORG_ONLY_USER, RUNTIME_URL, SEARCH_TIMEOUT_MS
from memoair_protocol.enums import RecallOrigin
from memoair_protocol.storage_root import resolve_storage_root
from memoair_voice_sync._closing import Closeable, close_all
from memoair_voice_sync._diagnostics import log, warn_unclosed
from memoair_voice_sync._loopback.runtime_client import RuntimeClient, RuntimeManager
from memoair_voice_sync._loopback.search_options import SearchOptions
from memoair_voice_sync._loopback.transport import parse_runtime_url
from memoair_voice_sync._pool.pool_of_one import PoolOfOne
from memoair_voice_sync._processes.spec import RuntimeSpec
from memoair_voice_sync._prompts.calls import PromptCalls, make_store
from memoair_voice_sync._prompts.setting import choose_fresh_s
from memoair_voice_sync._recall.mode import check_origin
from memoair_voice_sync._recall.observer import RecallObserver
from memoair_voice_sync._tools.tool import DEFAULT_INTENT, MemoryToolSync
from memoair_voice_sync._tools.tool_shapes import ToolAdapters
from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import Prompt, RecallRecord, SearchResult

_FLUSH_TIMEOUT_S = 7.0
_STOP_TIMEOUT_S = 2.0
_AMEND_TIMEOUT_S = 1.0


class MemoAirVoiceMemorySync(ToolAdapters, PromptCalls, Closeable):
    """The memory of one user of one project, over a runtime on this machine.

    By default the runtime is started on the first call, watched, restarted when it has died, and ended by `close`. Use
    the memory in a ``with`` block, or call `close`. For many users, use `MemoAirVoiceClientSync`.

    Every method may be called from any thread. Every method raises `MemoAirVoiceMemoryError` if the memory fails, and
    ValueError or TypeError for invalid arguments.

    Example:
        ```python
        with MemoAirVoiceMemorySync(project_id="proj_acme", user_id="caller_42") as memory:
            memory.start_session({"user": {"id": "caller_42", "name": "Alex"}})
            memory.after_turn("Where is my parcel?", "In Leeds.", turn_id="turn-1")
            print(memory.search_memory("parcel").contextText)
        ```
    """

    def __init__(
        self,
        *,
        project_id: str,
        user_id: str,
        api_key: str | None = None,
        agent_id: str | None = None,
        internal_token: str | None = None,
        runtime_url: str = RUNTIME_URL,
        runtime_token: str | None = None,
        session_id: str | None = None,
        satham: dict[str, Any] | None = None,
        auto_start_runtime: bool = True,
        runtime_binary: str | None = None,
        cloud_base_url: str | None = CLOUD_BASE_URL,
        storage_root: str | None = None,
        runtime_version: str | None = None,
        runtime_repo: str | None = None,
        runtime_cache_dir: str | None = None,
        client: urllib3.HTTPConnectionPool | None = None,
        runtime_manager: RuntimeManager | None = None,
        org_only: bool = False,
        org_file: str | None = None,
        redact: Callable[[str], str] | None = None,
        recall_traces: str | None = None,
        on_recall: Callable[[RecallRecord], object] | None = None,
        prompt_fresh_s: float | None = None,
    ) -> None:
        """Create the memory. No process is started before the first call.

        Args:
            project_id: The project that the memory belongs to.
            user_id: The user.
            api_key: The key that the runtime uses to reach the cloud. Without a key and a token there is no cloud.
            agent_id: The agent, which the cloud records with the session. Ignored if the runtime is not started here.
            internal_token: A token to use instead of ``api_key``. The runtime gets either by its environment.
            runtime_url: The loopback address of the runtime. With port 0 the runtime chooses a free port and requires
                a token that only this object knows.
            runtime_token: The token that the runtime requires. None means none, except with port 0.
            session_id: The id of the session (the call). None makes a new one.
            satham: The embedder: ``{"variant": "default"}``, or ``"medium"`` to rerank hits with a transformer, if
                the runtime has one.
            auto_start_runtime: Whether to start the runtime. If False, one must listen at ``runtime_url``.
            runtime_binary: A runtime program to use instead of the installed one.
            cloud_base_url: The URL of the cloud, or None for no cloud: then nothing leaves this machine.
            storage_root: The folder for memories on this machine. None means the user data folder of the platform.
            runtime_version: The version of a runtime to pull, in the background (see ``docs/runtimes.md``).
            runtime_repo: The repository of a runtime to pull.
            runtime_cache_dir: The folder that pulled runtimes are stored in.
            client: A urllib3 connection pool to use for a runtime that is not started here.
            runtime_manager: Another object that starts and ends the runtime. It can serve several memories.
            org_only: Search only the organization's documents, and save nothing.
            org_file: A file with the organization's documents, if no cloud has them: one JSON object
                ``{"id", "text", "metadata"}`` per line.
            redact: A function that receives each text of a turn before any of it is sent, and returns the text to keep.
            recall_traces: What is kept of each search: ``ids``, ``text`` or ``off``, as in `MemoAirVoiceClientSync`.
            on_recall: A function that receives a `RecallRecord` of each search, in a background thread.
            prompt_fresh_s: How long `prompt` uses a text, in seconds, as in `MemoAirVoiceClientSync`.

        Raises:
            ValueError: If an argument is invalid.
            TypeError: If an argument has the wrong type.
        """
        self._redaction = Redaction(redact)
        check.identifier("project_id", project_id)
        agent_id = check.optional_identifier("agent_id", agent_id)
        check.flag("org_only", org_only)
        check.flag("auto_start_runtime", auto_start_runtime)
        user_id = ORG_ONLY_USER if org_only else check.identifier("user_id", user_id)
        session = uuid.uuid4().hex if session_id is None else check.identifier("session_id", session_id)
        self._session_id = session
        self._user_id = user_id
        self._observer = RecallObserver(project_id, agent_id, recall_traces, on_recall, self._redaction)
        key = check.secret("api_key", api_key) or check.secret("internal_token", internal_token)
        base_url = check.base_url("cloud_base_url", cloud_base_url)
        root = check.path("storage_root", storage_root)
        self._prompts = make_store(
            resolve_storage_root(root), base_url, key, project_id, agent_id, choose_fresh_s(prompt_fresh_s)
        )
        satham = None if satham is None else check.mapping("satham", satham)
        host, port = parse_runtime_url(check.text("runtime_url", runtime_url))
        token = check.secret("runtime_token", runtime_token)
        self._owns_runtime = runtime_manager is None
        if runtime_manager is not None:
            self._runtime: RuntimeManager = runtime_manager
        elif auto_start_runtime and client is None:
            spec = RuntimeSpec(
                project_id=project_id,
                user_id=user_id,
                agent_id=agent_id,
                api_key=check.secret("api_key", api_key),
                internal_token=check.secret("internal_token", internal_token),
                # With port 0 other clients cannot know the port: then a token costs nothing and keeps strangers out.
                token=token or (None if port else secrets.token_urlsafe(32)),
                cloud_base_url=base_url,
                storage_root=root,
                org_only=org_only,
                org_file=check.existing_file("org_file", org_file),
                binary=check.path("runtime_binary", runtime_binary),
                version=check.optional_text("runtime_version", runtime_version),
                repo=check.optional_text("runtime_repo", runtime_repo),
                cache_dir=check.path("runtime_cache_dir", runtime_cache_dir),
            )
            self._runtime = PoolOfOne(spec, (host, port))
        else:
            if not port:
                raise ValueError("runtime_url must have a port unless the runtime is started here")
            spec = RuntimeSpec(project_id=project_id, user_id=user_id, token=token)
            self._runtime = PoolOfOne(spec, (host, port), starts_runtime=False, connection_pool=client)
        # The function does not refer to this object: it must be collected as soon as it is dropped.
        self._client = RuntimeClient(
            self._runtime, project_id, user_id, lambda: session, org_only=org_only, satham=satham
        )
        self._opened_by_pid: int | None = None  # the process that has opened the session and not ended it yet

    def __repr__(self) -> str:
        return f"<MemoAirVoiceMemorySync session={self._session_id!r} runtime={self._runtime!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session (the call)."""
        return self._session_id

    @property
    def runtime_pid(self) -> int | None:
        """The process id of the runtime, or None if it was not started here or is not running."""
        return self._runtime.pid

    def runtime_url(self, timeout_s: float = 5.0) -> str:
        """Return the address of the runtime; start it if it is not running.

        Args:
            timeout_s: The time that this may take, in seconds.

        Returns:
            The URL. Another client of the user also needs the runtime's token.

        Raises:
            MemoAirVoiceMemoryError: If no runtime can be started or reached in time.
        """
        return self._runtime.ensure_running(_deadline(timeout_s)).url

    def start_session(
        self, metadata: dict[str, Any] | None = None, timeout_s: float = 5.0, *, prompt: Prompt | None = None
    ) -> dict[str, Any]:
        """Open the session.

        A session that is already open stays open; one that has ended is opened again.

        Args:
            metadata: A JSON object that is stored with the session. ``user`` is who calls,
                ``{"id", "name", "metadata"}``; ``assistantName`` is the name of the agent.
            timeout_s: The time that this may take, in seconds, including the start of the runtime.
            prompt: The prompt of the agent, as `prompt` returns it: its version and label are stored with the session.

        Returns:
            The reply of the runtime, ``{"sessionId", "bootstrap", "paths"}``.

        Raises:
            MemoAirVoiceMemoryError: If the session cannot be opened in time.
        """
        given = check.mapping("metadata", metadata)
        about_prompt = self._prompt_metadata(prompt, given)
        redacted = {**self._redaction.redact_metadata(given), **about_prompt}
        reply = self._client.start_session(redacted, _deadline(timeout_s))
        self._opened_by_pid = os.getpid()
        return reply

    def end_session(self, reason: str = "completed", timeout_s: float = 5.0) -> dict[str, Any]:
        """End the session and flush it. Ending it again has no effect.

        Args:
            reason: Why the session ends; it is stored with the session.
            timeout_s: The time that this may take, in seconds.

        Returns:
            The reply of the runtime.

        Raises:
            MemoAirVoiceMemoryError: If the runtime fails or does not answer in time.
        """
        reply = self._client.end_session(
            self._redaction.redact_reason(check.text("reason", reason)), _deadline(timeout_s)
        )
        self._opened_by_pid = None
        return reply

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
        explain: bool = False,
        turn_id: str | None = None,
        origin: str = RecallOrigin.API.value,
    ) -> SearchResult:
        """Search the memory for what is relevant to a query, within a deadline.

        A lane that is late is left out and named in the trace.

        Args:
            query: What to search for, usually what the caller has just said.
            lanes: The lanes to search: ``profile``, ``working``, ``permanent``, ``org``. None means all.
            intent: What the result is for: ``answer_current_user``; ``summarise_recent``, which brings the last turns
                first; ``earlier_in_call``, which brings what matches in this call and then the rest of it; or
                ``fallback``.
            top_k: The largest number of hits per lane, such as ``{"org": 2}``.
            timeout_ms: The time within which this returns or raises, in milliseconds.
            filter: A condition on the metadata of hits in the ``permanent`` and ``org`` lanes, such as
                ``{"topic": "returns"}``.
            min_confidence: Leave out hits of less confidence, from 0 to 1, in the ``permanent`` and ``org`` lanes. None
                means none is left out.
            say_nothing_found: Whether the text says so of a lane that was searched and has found nothing.
            explain: Whether the trace has, under ``"explain"``, the parts of the score of each hit, by lane and id.
            turn_id: The id that the turn will be saved with, if it is known: the search's recall trace belongs to it.
                Otherwise it belongs to the turn that is saved next.
            origin: Who asks, for the recall trace: ``api``, ``tool``, ``hook`` or ``framework``.

        Returns:
            The hits of each lane, and the text composed from them for the language model.

        Raises:
            MemoAirVoiceMemoryError: If the memory fails, or ``runtime.timeout`` if it does not answer in time.
        """
        deadline = time.monotonic() + check.seconds("timeout_ms", timeout_ms, 1e-3)
        options = SearchOptions.parse(
            lanes, intent, top_k, filter, min_confidence, say_nothing_found=say_nothing_found, explain=explain
        )
        trace = self._observer.begin(check_origin(origin), check.optional_turn_identifier("turn_id", turn_id))
        try:
            result = self._client.search(check.text("query", query), options, deadline, trace)
        except BaseException:
            self._observer.fail(trace)
            raise
        self._observer.end(
            trace,
            user_id=None if self._user_id == ORG_ONLY_USER else self._user_id,
            session_id=self._session_id,
            query=query,
            intent=intent,
            deadline_ms=timeout_ms,
            result=result,
            amend=self._amend_trace,
        )
        return result

    def search_memory_tool(self, *, search_memory_timeout_ms: float | None = None) -> MemoryToolSync:
        """Return a tool with which a language model can search this memory.

        Args:
            search_memory_timeout_ms: The time that a search may take, in milliseconds. None means the default.

        Returns:
            The tool, which raises `MemoAirVoiceMemoryError` if the memory fails.
        """
        timeout_ms = SEARCH_TIMEOUT_MS if search_memory_timeout_ms is None else search_memory_timeout_ms
        check.seconds("search_memory_timeout_ms", timeout_ms, 1e-3)
        tool = RecallOrigin.TOOL.value
        return MemoryToolSync(
            lambda query, intent: self.search_memory(query, intent=intent, timeout_ms=timeout_ms, origin=tool)
        )

    def after_turn(
        self,
        user_text: str,
        assistant_text: str,
        turn_id: str,
        tool_calls: list[dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
        timeout_s: float = 1.0,
    ) -> str | None:
        """Save a completed turn; when this returns, the turn is on the disk.

        Args:
            user_text: What the caller said.
            assistant_text: What the agent answered, in full even if the caller interrupted it.
            turn_id: The id of the turn within its call. The same id with the same words is not saved again and returns
                the same event id; other words correct the turn.
            tool_calls: The tools that the agent called, as JSON objects.
            metadata: A JSON object that is stored with the turn. ``heard`` is the part of an interrupted answer that
                the caller heard ("" for nothing): memory then recalls and learns from that part alone.
                ``occurredAt`` is the time of the turn in ISO 8601, for old transcripts.
            timeout_s: The time that this may take, in seconds.

        Returns:
            The turn's ``localEventId``; None only with ``org_only``, which saves nothing.

        Raises:
            MemoAirVoiceMemoryError: If the turn is not saved in time. Saving it again with the same id is safe.
        """
        fields = {"turn_id": turn_id, "user_text": user_text, "assistant_text": assistant_text}
        turn = Turn.parse({**fields, "tool_calls": tool_calls, "metadata": metadata})
        turn = self._redaction.redact_turn(turn, ("", self._session_id))
        return self._client.after_turn(turn, _deadline(timeout_s))

    def flush(self, timeout_s: float = _FLUSH_TIMEOUT_S) -> bool:
        """Wait until the runtime has nothing left to write or to send.

        Args:
            timeout_s: The time to wait, in seconds.

        Returns:
            Whether everything was flushed in time.

        Raises:
            MemoAirVoiceMemoryError: If the runtime fails.
        """
        return self._client.flush(check.seconds("timeout_s", timeout_s))

    def close(self) -> None:
        """End the session if it is open, and the runtime if it was started here.

        Calling it again has no effect.
        """
        stop = partial(self._runtime.stop, _STOP_TIMEOUT_S)
        close_all(self._observer.close, self._prompts.close, self._end_open_session, stop)

    def _end_open_session(self) -> None:
        try:
            if self._opened_by_pid == os.getpid():  # a child of a fork does not end its parent's session
                self._opened_by_pid = None
                self.end_session("closed", timeout_s=_STOP_TIMEOUT_S)
        except MemoAirVoiceMemoryError as error:
            # The turns of the session are on the disk. Only its end is missing, which readers of the log tolerate.
            log.warning("a session could not be ended: action=end_failed code=%s", error.code)

    def _amend_trace(self, body: Mapping[str, Any]) -> None:
        self._client.amend_trace(body, _deadline(_AMEND_TIMEOUT_S))

    def __del__(self) -> None:
        runtime = getattr(self, "_runtime", None)  # absent if the constructor raised
        if isinstance(runtime, PoolOfOne) and self._owns_runtime and runtime.needs_close:
            warn_unclosed(self, partial(runtime.stop, _STOP_TIMEOUT_S))


def _deadline(timeout_s: float) -> float:
    return time.monotonic() + check.seconds("timeout_s", timeout_s)
