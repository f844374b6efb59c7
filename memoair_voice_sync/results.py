"""The results of calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from memoair_voice_sync._arguments import LANES
from memoair_voice_sync.errors import MemoAirVoiceMemoryError


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        contextText: The text composed from all hits, one section per lane, for the language model.
        profile: Who the user is (``version``, ``summary``, ...), or None.
        working: Hits from this session, each ``{"id", "text", "score", "confidence", "lane", "metadata",
            "source"}``. The confidence, from 0 to 1, means the same in every store.
        permanent: Hits from earlier sessions and facts.
        org: Hits from the organization's documents.
        sources: Where the hits come from.
        trace: What happened: the status, time, number of hits and confidence of each lane, whether it has
            ``nothingFound``, and whether the result is ``degraded``.
    """

    contextText: str  # noqa: N815 - the name in the SDK reference
    profile: dict[str, Any] | None
    working: list[dict[str, Any]]
    permanent: list[dict[str, Any]]
    org: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    trace: dict[str, Any]


def parse_search_result(reply: dict[str, Any]) -> SearchResult:
    """Return the result in a runtime's reply; raise ``runtime.internal`` if the reply is incomplete."""
    lists = [reply.get(name) for name in ("working", "permanent", "org", "sources")]
    context, profile, trace = reply.get("contextText"), reply.get("profile"), reply.get("trace")
    is_complete = isinstance(context, str) and isinstance(trace, dict) and all(isinstance(hits, list) for hits in lists)
    if not is_complete or not isinstance(profile, dict | None):
        raise MemoAirVoiceMemoryError("runtime.internal", "the runtime's reply to a search is invalid", 200)
    return SearchResult(
        contextText=reply["contextText"],
        profile=profile,
        working=reply["working"],
        permanent=reply["permanent"],
        org=reply["org"],
        sources=reply["sources"],
        trace=reply["trace"],
    )


def degraded_result(
    error: MemoAirVoiceMemoryError,
    lanes: Sequence[str] | None,
    timeout_ms: float,
    elapsed_ms: float,
    *,
    is_starting: bool = False,
) -> SearchResult:
    """Return an empty result for a search that failed. Its trace says why."""
    status = "loading" if is_starting else "late" if error.code == "runtime.timeout" else "error"
    return SearchResult(
        contextText="",
        profile=None,
        working=[],
        permanent=[],
        org=[],
        sources=[],
        trace={
            "degraded": True,
            "totalMs": round(elapsed_ms, 3),
            "deadlineMs": timeout_ms,
            "lanes": {
                lane: {"status": "skipped" if lanes is not None and lane not in lanes else status, "ms": 0.0, "hits": 0}
                for lane in LANES
            },
            "error": {"code": error.code, "message": error.message},
        },
    )


@dataclass(frozen=True)
class RecallRecord:
    """One search, as `on_recall` receives it: ids and numbers, none of the words.

    Attributes:
        trace_id: The id of its recall trace, by which the cloud has it; empty with ``recall_traces="off"``.
        user_id: The user; None for a search without one.
        session_id: The id of the session (the call).
        turn_id: The turn that the search is for, if its id was passed with it.
        origin: Who asked: ``tool`` (the language model), ``hook`` (an integration), ``api`` (the application) or
            ``framework`` (another program).
        intent: What the result was for.
        started_at: When the search began, in UTC.
        total_ms: How long the application waited, in milliseconds.
        deadline_ms: The time that it had, in milliseconds.
        degraded: Whether something is missing in the result.
        error_code: Why there is no result at all, such as ``runtime.timeout``; None if there is one.
        prefetched: Whether a prefetch answered.
        lanes: The status, milliseconds, number of hits and confidence of each lane, as in the result's trace.
        hits: The lane, id, score and confidence of each hit.
        context_chars: The number of characters of the result's ``contextText``.
    """

    trace_id: str
    user_id: str | None
    session_id: str
    turn_id: str | None
    origin: str
    intent: str
    started_at: datetime
    total_ms: float
    deadline_ms: float
    degraded: bool
    error_code: str | None
    prefetched: bool
    lanes: dict[str, dict[str, Any]]
    hits: list[dict[str, Any]]
    context_chars: int


@dataclass(frozen=True)
class IndexBuildResult:
    """An index of documents that was built or appended to.

    Attributes:
        index_name: The name of the index.
        chunk_count: The number of chunks created or appended.
        version: The version of the index, which grows with each call.
    """

    index_name: str
    chunk_count: int
    version: int | None


@dataclass(frozen=True)
class IndexLoadResult:
    """A user's memory that is ready for a call.

    Attributes:
        session_id: The id of the session (the call).
        profile_version: The version of the profile, or None.
        permanent_manifest_version: The version of earlier sessions and facts, or None.
        org_manifest_version: The version of the documents, or None.
        scopes_loaded: The lanes that are ready to be searched.
    """

    session_id: str
    profile_version: int | None
    permanent_manifest_version: int | None
    org_manifest_version: int | None
    scopes_loaded: list[str]


@dataclass(frozen=True)
class Prompt:
    """A version of the agent's prompt, with its placeholders filled in.

    The ``repr`` does not show the text, because what was filled in may be about a caller.

    Attributes:
        text: The text for the language model.
        version: The version; None for the ``default`` of the application.
        label: The label that was asked for; None if a version was.
        agent_id: The agent that it belongs to.
        is_stale: Whether the cloud has not confirmed within ``prompt_fresh_s`` that the label still points to this
            version, for example because it cannot be reached.
    """

    text: str = field(repr=False)
    version: int | None
    label: str | None
    agent_id: str
    is_stale: bool
