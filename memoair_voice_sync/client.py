"""The client: memory for many concurrent users, over a pool of runtimes."""

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import memoair_voice_sync._arguments as check
from memoair_protocol.defaults import CLOUD_BASE_URL, ORG_ONLY_USER, RUNTIME_PORT_RANGE
from memoair_protocol.storage_root import resolve_storage_root
from memoair_voice_sync._after_fork import reset_if_forked
from memoair_voice_sync._closing import Closeable, close_all
from memoair_voice_sync._cloud.api import CloudApi
from memoair_voice_sync._diagnostics import warn_deprecated, warn_unclosed
from memoair_voice_sync._loopback.user_runtime_client import UserRuntimeClient
from memoair_voice_sync._pool.pool import RuntimePool
from memoair_voice_sync._processes.spec import RuntimeSpec
from memoair_voice_sync._prompts.calls import make_store
from memoair_voice_sync._prompts.setting import choose_fresh_s
from memoair_voice_sync._recall.observer import RecallObserver
from memoair_voice_sync._tools.tool import MemoryToolSync
from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync._turns.spool import TurnSpool
from memoair_voice_sync._turns.user import User
from memoair_voice_sync._user_calls import UserCalls
from memoair_voice_sync.results import Prompt, RecallRecord
from memoair_voice_sync.session import VoiceSessionSync, make_tool

_CLOSE_TIMEOUT_S = 7.0
_WARM_UP_TIMEOUT_S = 15.0
_MAX_SAVING_THREADS = 8


class MemoAirVoiceClientSync(UserCalls, Closeable):
    """Memory for all callers of one voice agent.

    Create one client per process, pass ``user={"id", "name", "metadata"}`` with every call, and `close` the client at
    the end or use it in a ``with`` block. Each user gets a dedicated runtime process, forked from a warm fork server on
    first use (where forking is not safe, a new program is started). Clients on one machine that serve the same user
    share that user's runtime. After a fork of this process, parent and child each have their own runtimes.

    Turns go to the cloud in the background, and what the cloud knows comes back. Without a cloud, nothing leaves this
    machine.

    Every method may be called from any thread. Every method raises ValueError or TypeError for invalid arguments, and
    `MemoAirVoiceMemoryError` with ``pool.exhausted``, ``pool.port_exhausted`` or ``pool.closed`` if the pool cannot
    serve a user. `search_memory` raises for no other failure of the memory.

    Example:
        ```python
        user = {"id": "caller_42", "name": "Alex"}
        with MemoAirVoiceClientSync(api_key="...", project_id="proj_acme", agent_id="agent_returns") as client:
            client.load_index(user=user)
            result = client.search_memory("Where is my parcel?", user=user)
            answer = "In Leeds."  # from a language model that is given result.contextText
            client.save_response(user=user, user_text="Where is my parcel?", assistant_text=answer)
        ```
    """

    def __init__(
        self,
        *,
        api_key: str,
        project_id: str,
        agent_id: str,
        cloud_base_url: str | None = CLOUD_BASE_URL,
        max_concurrent_users: int = 20,
        runtime_idle_ttl_s: float = 300,
        runtime_port_range: tuple[int, int] = RUNTIME_PORT_RANGE,
        storage_root: str | None = None,
        runtime_binary: str | None = None,
        runtime_version: str | None = None,
        runtime_repo: str | None = None,
        runtime_cache_dir: str | None = None,
        runtime_memory_limit_mb: float | None = None,
        org_only: bool = False,
        org_file: str | None = None,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        redact: Callable[[str], str] | None = None,
        recall_traces: str | None = None,
        on_recall: Callable[[RecallRecord], object] | None = None,
        prompt_fresh_s: float | None = None,
    ) -> None:
        """Create a client. No process is started before the first call.

        Args:
            api_key: The API key of the account.
            project_id: The project that documents, users and memories belong to.
            agent_id: The agent within the project.
            cloud_base_url: The URL of the cloud, or None for no cloud.
            max_concurrent_users: The size of the pool: the number of users who can have a runtime at the same time.
                One more evicts the runtime that was used least recently.
            runtime_idle_ttl_s: The time in seconds after which an unused runtime is stopped.
            runtime_port_range: The first and the last loopback port that runtimes may listen on.
            storage_root: The folder for memories on this machine. None means the user data folder of the platform.
            runtime_binary: A runtime program to use instead of the installed one.
            runtime_version: The version of a runtime to pull, in the background (see ``docs/runtimes.md``).
            runtime_repo: The repository of a runtime to pull.
            runtime_cache_dir: The folder that pulled runtimes are stored in.
            runtime_memory_limit_mb: Replace a runtime that uses more memory than this, in MB. None means no limit.
            org_only: Search only the organization's documents, and save nothing. Calls then need no user.
            org_file: A file with the organization's documents, if no cloud has them: one JSON object
                ``{"id", "text", "metadata"}`` per line.
            user: The only user of this client, ``{"id", "name", "metadata"}``. Calls then need not name one.
            user_id: Deprecated: the id of the only user. Use ``user``.
            redact: A function that receives each text of a turn before any of it is saved or sent, and returns the
                text to keep (see `memoair_voice_sync.redaction`). It must be safe to call from any thread.
            recall_traces: What is kept of each search: ``ids`` (ids and numbers, no words), ``text`` (also the question
                and the recalled text, both through ``redact``) or ``off``. None means ``MEMOAIR_RECALL_TRACES``, then
                what the project says, then ``ids`` (see ``docs/recall-traces.md``).
            on_recall: A function that receives a `RecallRecord` of each search, in a background thread of the client,
                one at a time and in order: it never delays an answer. What it raises is logged once. If 1,000 searches
                wait for it, further ones are not reported, and `stats` counts them.
            prompt_fresh_s: How long `prompt` uses a text without asking the cloud whether its label has moved, in
                seconds. None means ``MEMOAIR_PROMPT_FRESH_S``, then 60.

        Raises:
            ValueError: If an argument is invalid.
            TypeError: If an argument has the wrong type.
        """
        if user_id is not None:
            warn_deprecated('user_id= of the client is deprecated; use user={"id": ...}')
        only_user = None if user is None and user_id is None else User.parse(user, user_id)
        redaction = Redaction(redact)
        fresh_s = choose_fresh_s(prompt_fresh_s)
        observer = RecallObserver(project_id, agent_id, recall_traces, on_recall, redaction)
        self._project_id = check.identifier("project_id", project_id)
        check.flag("org_only", org_only)
        spec = RuntimeSpec(
            project_id=self._project_id,
            user_id=ORG_ONLY_USER,  # the pool sets the user of each runtime
            agent_id=check.identifier("agent_id", agent_id),
            api_key=check.required_secret("api_key", api_key),
            cloud_base_url=check.base_url("cloud_base_url", cloud_base_url),
            storage_root=check.path("storage_root", storage_root),
            org_only=org_only,
            org_file=check.existing_file("org_file", org_file),
            binary=check.path("runtime_binary", runtime_binary),
            version=check.optional_text("runtime_version", runtime_version),
            repo=check.optional_text("runtime_repo", runtime_repo),
            cache_dir=check.path("runtime_cache_dir", runtime_cache_dir),
        )
        pool = RuntimePool(
            spec,
            max_concurrent_users=check.count("max_concurrent_users", max_concurrent_users),
            runtime_idle_ttl_s=check.seconds("runtime_idle_ttl_s", runtime_idle_ttl_s),
            runtime_port_range=check.port_range("runtime_port_range", runtime_port_range),
            runtime_memory_limit_mb=check.limit("runtime_memory_limit_mb", runtime_memory_limit_mb),
        )
        root = resolve_storage_root(spec.storage_root)
        self._prompts = make_store(root, spec.cloud_base_url, api_key, project_id, agent_id, fresh_s)
        cloud = CloudApi(spec.cloud_base_url, api_key, project_id, agent_id)
        super().__init__(
            cloud,
            pool,
            UserRuntimeClient(project_id, org_only=org_only),
            runtimes_see_documents=cloud.is_configured and org_file is None,
            only_user=only_user,
            org_only=org_only,
            redaction=redaction,
            observer=observer,
            spool=None if org_only else TurnSpool(root, project_id, spec.cloud_base_url),
            # Each of them takes a place of the pool while it saves.
            max_saving_threads=max(2, min(_MAX_SAVING_THREADS, max_concurrent_users // 2)),
        )

    def __repr__(self) -> str:
        return f"<MemoAirVoiceClientSync {self._pool!r}>"

    def session(
        self,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        prompt: Prompt | None = None,
    ) -> VoiceSessionSync:
        """Return a session: one call of a user, whose runtime is not evicted while the call goes on.

        Entering its ``with`` block opens the call and waits until the user's memory is loaded, for five seconds at
        most. Leaving the block ends the call, and the cloud learns from it at once.

        Args:
            user: The user who calls, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            session_id: The id of the call, for example that of the telephone platform. The same id in another process
                or on another machine goes on with the call. None makes a new id.
            metadata: A JSON object that is stored with the call.
            prompt: The prompt that the agent has in this call, as `prompt` returns it. Its version and label are stored
                with the call; its text is not.

        Returns:
            A session with the same methods for this user and call. Use it in a ``with`` block, or close it.

        Raises:
            MemoAirVoiceMemoryError: ``pool.exhausted`` or ``pool.closed``.
        """
        caller = self._resolve_user(user, user_id)
        call_id = check.optional_identifier("session_id", session_id) or uuid.uuid4().hex
        given = check.json_mapping("metadata", metadata)
        about_prompt = self._prompt_metadata(prompt, given)  # a version is no number of a caller, and is not redacted
        call_metadata = {**self._redaction.redact_metadata(given), **about_prompt}
        handle = self._pool.acquire(self._pool_key(caller), pins=True)
        self._runtime_client.own_session(handle, call_id, call_metadata)
        user = dict(caller.fields)
        return VoiceSessionSync(
            call_id,
            open_call=partial(self._open_call, handle, caller, call_id),
            search=partial(self.search_memory, user=user, session_id=call_id),
            prefetch=partial(self.prefetch, user=user, session_id=call_id),
            save=partial(self.save_response, user=user, session_id=call_id),
            close_call=partial(self._close_call, handle, call_id),
        )

    def search_memory_tool(
        self,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        search_memory_timeout_ms: float | None = None,
        session_id: str | None = None,
    ) -> MemoryToolSync:
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
        caller = dict(self._resolve_user(user, user_id).fields)
        session_id = check.optional_identifier("session_id", session_id)
        return make_tool(partial(self.search_memory, user=caller, session_id=session_id), search_memory_timeout_ms)

    def warm_up(self, *, timeout_s: float = _WARM_UP_TIMEOUT_S) -> None:
        """Start what the runtimes of all users need, before the first call.

        Starts the fork server and waits until it can fork, and until a runtime that is to be pulled is pulled. Without
        this, the first caller of a process waits for it, some half a second. Call it where a worker process starts, for
        example in ``post_fork`` of gunicorn or ``worker_process_init`` of Celery. In a process that is warm, it returns
        immediately.

        Args:
            timeout_s: The time that this may take, in seconds.

        Raises:
            MemoAirVoiceMemoryError: ``runtime.timeout`` if it takes longer (what was started goes on),
                ``runtime.not_found``, ``runtime.start_failed``, or ``pool.closed``.
            RuntimeError: If gevent or eventlet has patched the standard library after this package was imported.
        """
        self._pool.warm_up(check.seconds("timeout_s", timeout_s))

    def stats(self) -> dict[str, Any]:
        """Return statistics of the pool, the runtimes, the searches and the saves.

        Returns:
            A dict with these keys:

                * ``max_concurrent_users``: the size of the pool.
                * ``runtimes``: a dict for each user with a place in the pool: ``user_id``, ``session_id``, ``state``,
                  ``in_use`` (calls in progress), ``restarts``, ``pid``, ``port``, ``borrowed`` (whether another client
                  started the runtime), ``rss_bytes``, ``cpu_s`` and ``uptime_s``; and the state of its sync with the
                  cloud: ``sync`` (``off``, ``connecting``, ``ok``, ``retrying`` or ``refused``), ``cloud_rejection``
                  (why it is ``refused``: the API key, the project or the agent), ``unsynced_events``,
                  ``oldest_unsynced_s`` and ``refused_events``, all None if the runtime does not answer within half a
                  second. The user ``__org__``, if present, pulls the organization's documents.
                * ``backlog``: what waits on this machine to be sent to the cloud, of all users of the project, whether
                  or not they have a runtime: ``turns``, ``users``, ``oldest_s`` (the age of the oldest in seconds,
                  None without any), ``refused_events`` (which the cloud has rejected permanently) and ``sync`` (the
                  state of the connection, as above). None without a cloud, and before the first runtime has started.
                * ``retiring``: runtimes that are being stopped.
                * ``evictions``, ``restarts``: runtimes that were evicted, or replaced because they died.
                * ``degraded_searches``: searches that failed and returned an empty result.
                * ``prefetched_searches``: searches that a prefetch answered.
                * ``deferred_saves``: saves that could not be made immediately.
                * ``pending_saves``, ``lost_saves``: deferred saves that are still to be made by this client, or failed
                  permanently.
                * ``spooled_saves``: deferred saves that wait on the disk, also those of other clients with the same
                  storage root, project and cloud, and those that a closed or killed one has left.
                * ``dropped_recalls``: searches that ``on_recall`` was not called for.
                * ``prompts``: a dict for each label or version that `prompt` was asked for: ``label``, ``version``,
                  ``age_s`` (the time since the cloud has confirmed it), ``is_stale``, ``failures`` (attempts in a row
                  that failed) and ``error`` (the code of the last one, None after a success).
        """
        return {
            **self._pool.stats(),
            "degraded_searches": self._degraded.count,
            "prefetched_searches": self._prefetch_cache.hits,
            "deferred_saves": self._deferred_saves,
            "pending_saves": len(self._outbox),
            "lost_saves": self._outbox.lost,
            "spooled_saves": self._outbox.count_spooled(),
            "dropped_recalls": self._observer.dropped,
            "prompts": self._prompts.stats(),
        }

    def close(self) -> None:
        """Save pending turns, end every session and stop every runtime; leave no process behind.

        This takes some seconds if runtimes are busy. Turns that cannot be saved by then stay on the disk, and the next
        client with this storage root and project saves them. Calling it again has no effect.
        """
        reset_if_forked()
        close_all(
            self._observer.close,
            lambda: self._outbox.close(_CLOSE_TIMEOUT_S / 2 if len(self._outbox) else 0),
            partial(self._pool.close, _CLOSE_TIMEOUT_S),
            self._prefetch_cache.close,
            self._prompts.close,
            self._cloud.close,
        )

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)  # absent if the constructor raised
        if pool is not None and pool.needs_close:
            warn_unclosed(self, partial(pool.close, _CLOSE_TIMEOUT_S))
