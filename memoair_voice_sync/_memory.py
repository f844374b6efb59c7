"""One caller's memory, without a pool: the raw client."""

import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import urllib3

import memoair_voice_sync._arguments as check
from memoair_voice_sync._attach import AttachedRuntime
from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync._process import RuntimeManager, RuntimeProcess
from memoair_voice_sync._redaction import Redaction
from memoair_voice_sync._resource_warning import warn_unclosed
from memoair_voice_sync._results import SearchResult, parse_search_result
from memoair_voice_sync._runtime_call import MAX_RUNTIME_TIMEOUT_MS, call_runtime
from memoair_voice_sync._spec import ORG_ONLY_USER, RuntimeSpec
from memoair_voice_sync._tool import DEFAULT_INTENT, MemoryToolSync
from memoair_voice_sync._tool_shapes import ToolAdapters
from memoair_voice_sync._transport import RuntimeTransport, parse_runtime_url
from memoair_voice_sync._turn import validate_turn

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_RUNTIME_URL = "http://127.0.0.1:7878"
DEFAULT_CLOUD_BASE_URL = "https://backend.memoair.space"
DEFAULT_TIMEOUT_MS = 250

_FLUSH_TIMEOUT_S = 7.0
_STOP_TIMEOUT_S = 2.0


class MemoAirVoiceMemorySync(ToolAdapters):
    """Memory for one caller (``user_id``) of one project, over a runtime on this machine.

    With ``auto_start_runtime`` the runtime is started at the first call, watched, started again when it has died, and
    ended by `close`; a ``runtime_url`` with port 0 lets it choose a free port, and then it is reachable with a token of
    its own only. Without, one must listen at ``runtime_url``. ``runtime_binary`` names another runtime than the
    installed one, ``runtime_repo`` and ``runtime_version`` one that is pulled into ``runtime_cache_dir``
    (``docs/runtimes.md``). ``runtime_manager`` is whoever else starts it; ``client`` a urllib3 connection pool to use
    for a runtime that is not started here.

    Either ``api_key`` or ``internal_token`` must be set if the runtime needs to bootstrap from the cloud; they reach it
    by its environment. Without, or where ``cloud_base_url`` is None, there is no cloud and nothing leaves this machine;
    ``org_file`` may then hold the organisation's documents as JSON lines (``{"id", "text", "metadata"}``). ``org_only``
    searches these alone and keeps nothing. ``satham`` selects the embedder: ``{"variant": "default"}``, or ``"medium"``
    for a second reading by a transformer, where the runtime has one. ``redact`` is given each text of a turn before
    anything of it is sent, and returns what may be kept.

    Every method may be called from any thread. Each raises `MemoAirVoiceMemoryError` where the memory fails, ValueError
    or TypeError where an argument can't be. Use it in a ``with`` block, or call `close`.
    """

    def __init__(
        self,
        *,
        project_id: str,
        user_id: str,
        api_key: str | None = None,
        internal_token: str | None = None,
        runtime_url: str = DEFAULT_RUNTIME_URL,
        runtime_token: str | None = None,
        session_id: str | None = None,
        satham: dict[str, Any] | None = None,
        auto_start_runtime: bool = True,
        runtime_binary: str | None = None,
        cloud_base_url: str | None = DEFAULT_CLOUD_BASE_URL,
        storage_root: str | None = None,
        runtime_version: str | None = None,
        runtime_repo: str | None = None,
        runtime_cache_dir: str | None = None,
        client: urllib3.HTTPConnectionPool | None = None,
        runtime_manager: RuntimeManager | None = None,
        org_only: bool = False,
        org_file: str | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> None:
        self._redaction = Redaction(redact)
        self._project_id = check.identifier("project_id", project_id)
        check.flag("org_only", org_only)
        check.flag("auto_start_runtime", auto_start_runtime)
        self._user_id = ORG_ONLY_USER if org_only else check.identifier("user_id", user_id)
        self._session_id = uuid.uuid4().hex if session_id is None else check.identifier("session_id", session_id)
        self._satham = {"variant": "default"} if satham is None else check.mapping("satham", satham)
        self._org_only = org_only
        host, port = parse_runtime_url(check.text("runtime_url", runtime_url))
        token = check.secret("runtime_token", runtime_token)
        self._owns_runtime = runtime_manager is None
        if runtime_manager is not None:
            self._runtime = runtime_manager
        elif auto_start_runtime and client is None:
            spec = RuntimeSpec(
                project_id=self._project_id,
                user_id=self._user_id,
                api_key=check.secret("api_key", api_key),
                internal_token=check.secret("internal_token", internal_token),
                # A port that was chosen by nobody is known to nobody: then a token costs nothing and shuts others out.
                token=token or (None if port else secrets.token_urlsafe(32)),
                cloud_base_url=check.base_url("cloud_base_url", cloud_base_url),
                storage_root=check.path("storage_root", storage_root),
                org_only=org_only,
                org_file=check.existing_file("org_file", org_file),
                binary=check.path("runtime_binary", runtime_binary),
                version=check.optional_text("runtime_version", runtime_version),
                repo=check.optional_text("runtime_repo", runtime_repo),
                cache_dir=check.path("runtime_cache_dir", runtime_cache_dir),
            )
            self._runtime = RuntimeProcess(spec, host, port)
        else:
            if not port:
                raise ValueError("runtime_url needs a port unless the runtime is started here")
            transport = RuntimeTransport(host, port, token, client)
            self._runtime = AttachedRuntime(transport, self._project_id, self._user_id, runtime_url)
        self._opened_by_pid: int | None = None  # the process that has opened the session and not ended it

    def __repr__(self) -> str:
        return f"<MemoAirVoiceMemorySync session={self._session_id!r} runtime={self._runtime!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session (the call) that this object speaks for."""
        return self._session_id

    @property
    def runtime_pid(self) -> int | None:
        """The process id of the runtime, where it was started here and lives."""
        return self._runtime.pid

    def runtime_url(self, timeout_s: float = 5.0) -> str:
        """The address of the runtime, started if need be; another client of the caller needs its token, too."""
        return self._runtime.ensure_running(time.monotonic() + check.seconds("timeout_s", timeout_s)).url

    def start_session(self, metadata: dict[str, Any] | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
        """Open the session and return the runtime's reply, ``{"sessionId", "bootstrap", "paths"}``.

        ``metadata["user"]`` is who calls, ``{"id", "name", "metadata"}``; ``metadata["assistantName"]`` how the agent
        is called. A session that is open already stays so; one that has ended is opened again.
        """
        body = {
            "sessionId": self._session_id,
            "satham": self._satham,
            "metadata": check.mapping("metadata", metadata),
            **({"mode": "org_only"} if self._org_only else {}),
        }
        reply = self._call("session/start", body, check.seconds("timeout_s", timeout_s))
        for part in ("storage", "org"):
            if part in reply:  # the session is open all the same
                log.warning("a session began without its %s: action=%s_missing why=%s", part, part, reply[part])
        self._opened_by_pid = os.getpid()
        return reply

    def end_session(self, reason: str = "completed", timeout_s: float = 5.0) -> dict[str, Any]:
        """Close the session and return what was flushed. Ending it twice is no error."""
        body = {"sessionId": self._session_id, "reason": check.text("reason", reason)}
        reply = self._call("session/end", body, check.seconds("timeout_s", timeout_s))
        self._opened_by_pid = None
        return reply

    def search_memory(
        self,
        query: str,
        *,
        lanes: Sequence[str] | None = None,
        intent: str = DEFAULT_INTENT,
        top_k: Mapping[str, int] | None = None,
        timeout_ms: float = DEFAULT_TIMEOUT_MS,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
        explain: bool = False,
    ) -> SearchResult:
        """Recall what matters for ``query``, over the given ``lanes`` or all four, within ``timeout_ms``.

        ``top_k`` bounds the items of each lane, ``filter`` keeps only hits of the org and permanent lanes whose
        metadata fits. Lanes that are late are dropped and named in the trace. ``explain`` lets the trace tell, under
        ``"explain"``, for each lane and each hit by its id what its score is the sum of.
        """
        body = {
            "sessionId": self._session_id,
            "query": check.text("query", query),
            "intent": check.text("intent", intent),
            "includeSources": True,
            "lanes": ["org"] if self._org_only and lanes is None else check.lanes(lanes),
            "topK": None if top_k is None else check.mapping("top_k", top_k),
            "filter": None if filter is None else check.mapping("filter", filter),
            **({"explain": True} if check.flag("explain", explain) else {}),
        }
        return parse_search_result(
            self._call("search_memory", body, check.seconds("timeout_ms", timeout_ms, 1e-3), sends_timeout=True)
        )

    def search_memory_tool(self, *, search_memory_timeout_ms: float | None = None) -> MemoryToolSync:
        """Return a tool that a language model can be given to search this memory."""
        timeout_ms = DEFAULT_TIMEOUT_MS if search_memory_timeout_ms is None else search_memory_timeout_ms
        check.seconds("search_memory_timeout_ms", timeout_ms, 1e-3)
        return MemoryToolSync(lambda query, intent: self.search_memory(query, intent=intent, timeout_ms=timeout_ms))

    def after_turn(
        self,
        user_text: str,
        assistant_text: str,
        turn_id: str,
        tool_calls: list[dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
        timeout_s: float = 1.0,
    ) -> str | None:
        """Keep a completed turn; it is on the disk when this returns its ``localEventId``.

        A ``turn_id`` that was kept before keeps nothing again and returns the same id. ``metadata["occurredAt"]`` is
        when it was spoken, for old transcripts, ``metadata["heard"]`` what the caller heard of an answer that was
        interrupted: the memory takes it for what was said. Returns None only with ``org_only``, where nothing is kept.
        """
        fields = {"turn_id": turn_id, "user_text": user_text, "assistant_text": assistant_text}
        turn = self._redaction.redact_turn(validate_turn({**fields, "tool_calls": tool_calls, "metadata": metadata}))
        body = {
            "sessionId": self._session_id,
            "turnId": turn["turn_id"],
            "userText": turn["user_text"],
            "assistantText": turn["assistant_text"],
            "toolCalls": turn["tool_calls"],
            "metadata": turn["metadata"],
        }
        event_id = self._call("turn/after", body, check.seconds("timeout_s", timeout_s)).get("localEventId")
        return None if event_id is None else str(event_id)

    def flush(self, timeout_s: float = _FLUSH_TIMEOUT_S) -> bool:
        """Wait until nothing is pending in the runtime; tell whether that came true in time."""
        checked_timeout_s = check.seconds("timeout_s", timeout_s)
        reply = self._call(
            "sync/flush", {"deadlineMs": min(checked_timeout_s * 1e3, MAX_RUNTIME_TIMEOUT_MS)}, checked_timeout_s + 1
        )
        return reply.get("status") == "ok"

    def close(self) -> None:
        """End the session if it is open, and the runtime if it was started here. Twice is no harm."""
        try:
            if self._opened_by_pid == os.getpid():  # a child of a fork does not end its parent's call
                self._opened_by_pid = None
                self.end_session("closed", timeout_s=_STOP_TIMEOUT_S)
        except MemoAirVoiceMemoryError as error:
            # The session's turns are on the disk; only its end is not, and whoever reads the log can live with that.
            log.warning("the end of a session could not be told: action=end_failed code=%s", error.code)
        finally:
            self._runtime.stop(_STOP_TIMEOUT_S)

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        runtime = getattr(self, "_runtime", None)  # none where the constructor has refused
        if isinstance(runtime, RuntimeProcess) and self._owns_runtime and runtime.pid is not None:
            warn_unclosed(self, partial(runtime.stop, _STOP_TIMEOUT_S))

    def _call(
        self, path: str, body: dict[str, Any], timeout_s: float, *, sends_timeout: bool = False
    ) -> dict[str, Any]:
        # Every call names whom it is for: the port may have passed to another user's runtime since the last one.
        identity = {"workspaceId": self._project_id, "userId": self._user_id}
        return call_runtime(self._runtime, path, body | identity, timeout_s, sends_timeout=sends_timeout)
