"""The client: memory for many callers at once, over a pool of runtimes."""

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import memoair_voice_sync._arguments as check
from memoair_voice_sync._cloud import CloudApi
from memoair_voice_sync._deprecation import warn_deprecated
from memoair_voice_sync._memory import DEFAULT_CLOUD_BASE_URL
from memoair_voice_sync._pool import RuntimePool
from memoair_voice_sync._redaction import Redaction
from memoair_voice_sync._resource_warning import warn_unclosed
from memoair_voice_sync._session import VoiceSessionSync, make_tool
from memoair_voice_sync._spec import ORG_ONLY_USER, RuntimeSpec
from memoair_voice_sync._tool import MemoryToolSync
from memoair_voice_sync._user import User
from memoair_voice_sync._user_calls import UserCalls
from memoair_voice_sync._user_runtime_client import UserRuntimeClient

if TYPE_CHECKING:
    from typing_extensions import Self

_CLOSE_TIMEOUT_S = 7.0


class MemoAirVoiceClientSync(UserCalls):
    """Memory for all callers of one voice agent, from any thread of this process.

    Construct it once, pass ``user={"id", "name", "metadata"}`` with every call, and `close` it at the end or use it in
    a ``with`` block. Each caller has a runtime process of his own, forked from a warm host at his first call; at most
    ``max_concurrent_users`` live at a time, each for ``runtime_idle_ttl_s`` after its last use, on the ports of
    ``runtime_port_range`` (both ends belong to it). Client processes on one machine that serve the same caller share
    his runtime. After a fork of this process, parent and child each have runtimes of their own.

    ``storage_root`` is where memory lies on this machine. What is said goes on to the cloud at ``cloud_base_url``, and
    what it knows comes back, in the background; None: there is no cloud, and nothing leaves this machine. ``org_file``
    holds the organisation's documents as JSON lines where no cloud has them; ``org_only`` searches documents alone and
    keeps nothing. ``runtime_binary`` names another runtime than the installed one, ``runtime_repo`` and
    ``runtime_version`` one that is pulled into ``runtime_cache_dir`` behind the calls (``docs/runtimes.md``). A runtime
    that takes more than ``runtime_memory_limit_mb`` is replaced. ``redact`` is given each text of a turn before any of
    it is kept or sent, and returns what may be.

    With ``user`` the client serves that caller only, whom no call needs to name then; ``user_id`` is his id alone, and
    deprecated.

    Every method may be called from any thread. ValueError and TypeError tell of arguments that can't be,
    `MemoAirVoiceMemoryError` with ``pool.exhausted``, ``pool.port_exhausted`` or ``pool.closed`` of a pool that can't
    serve; a memory that fails otherwise never raises in `search_memory`.
    """

    def __init__(
        self,
        *,
        api_key: str,
        project_id: str,
        agent_id: str,
        cloud_base_url: str | None = DEFAULT_CLOUD_BASE_URL,
        max_concurrent_users: int = 20,
        runtime_idle_ttl_s: float = 300,
        runtime_port_range: tuple[int, int] = (7878, 7977),
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
    ) -> None:
        if user_id is not None:
            warn_deprecated('user_id= of the client is deprecated: user={"id": ...} is the only caller of a client')
        only_user = None if user is None and user_id is None else User.parse(user, user_id)
        redaction = Redaction(redact)
        self._project_id = check.identifier("project_id", project_id)
        check.flag("org_only", org_only)
        spec = RuntimeSpec(
            project_id=self._project_id,
            user_id=ORG_ONLY_USER,  # of each runtime its own
            agent_id=check.identifier("agent_id", agent_id),
            api_key=check.secret("api_key", check.identifier("api_key", api_key)),
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
        cloud = CloudApi(spec.cloud_base_url, api_key, project_id, agent_id)
        super().__init__(
            cloud,
            pool,
            UserRuntimeClient(project_id, org_only=org_only),
            runtimes_see_documents=cloud.is_configured and org_file is None,
            only_user=only_user,
            org_only=org_only,
            redaction=redaction,
        )

    def __repr__(self) -> str:
        return f"<MemoAirVoiceClientSync {self._pool!r}>"

    def session(self, *, user: Mapping[str, Any] | None = None, user_id: str | None = None) -> VoiceSessionSync:
        """Pin a caller's runtime for many calls: use the session in a ``with`` block, or `close` it."""
        caller = self._resolve_user(user, user_id)
        handle = self._pool.acquire(self._pool_key(caller), pins=True)
        user = dict(caller.fields)
        return VoiceSessionSync(
            partial(self.search_memory, user=user),
            partial(self.prefetch, user=user),
            partial(self.save_response, user=user),
            partial(self._pool.release, handle, pins=True),
        )

    def search_memory_tool(
        self,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        search_memory_timeout_ms: float | None = None,
    ) -> MemoryToolSync:
        """Return a tool that a language model can be given to search a caller's memory; `session` has all shapes.

        A memory that fails gives it an empty text, and its ``last_trace`` says why.
        """
        caller = dict(self._resolve_user(user, user_id).fields)
        return make_tool(partial(self.search_memory, user=caller), search_memory_timeout_ms)

    def stats(self) -> dict[str, Any]:
        """What the client holds and does.

        ``runtimes`` has for each caller ``user_id``, ``session_id``, ``state``, ``in_use``, ``restarts``, ``pid``,
        ``port``, ``borrowed`` (another client's), ``rss_bytes``, ``cpu_s``, ``uptime_s``, and how his runtime's talk
        with the cloud goes: ``sync`` (``off``, ``connecting``, ``ok``, ``retrying`` or ``refused``),
        ``unsynced_events``, ``oldest_unsynced_s``, ``refused_events``, all None for one that does not answer within
        half a second. The one of ``__org__``, if any, pulls the organisation's documents. Besides, how many runtimes
        are ``retiring``, were evicted (``evictions``) or started again (``restarts``), how many searches came back
        ``degraded_searches`` or were answered by a prefetch (``prefetched_searches``), and of saves how many were
        ``deferred_saves``, are ``pending_saves`` or ``lost_saves``.
        """
        return {
            **self._pool.stats(),
            "degraded_searches": self._degraded_searches,
            "prefetched_searches": self._prefetch_cache.hits,
            "deferred_saves": self._deferred_saves,
            "pending_saves": len(self._outbox),
            "lost_saves": self._outbox.lost,
        }

    def close(self) -> None:
        """Save what waits, end every call and every runtime; nothing is left behind. Twice is no harm."""
        self._outbox.close(_CLOSE_TIMEOUT_S / 2 if len(self._outbox) else 0)
        self._pool.close(_CLOSE_TIMEOUT_S)
        self._prefetch_cache.close()
        self._cloud.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)  # none where the constructor has refused
        if pool is not None and pool.is_in_use:
            warn_unclosed(self, partial(pool.close, _CLOSE_TIMEOUT_S))
