"""What the calls return."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memoair_voice_sync._arguments import LANES
from memoair_voice_sync._errors import MemoAirVoiceMemoryError


@dataclass(frozen=True)
class SearchResult:
    """What was recalled for a question.

    ``contextText`` is composed text, ready to be put before the language model; the lists hold the hits that it was
    made of (``{"id", "text", "score", "lane", "metadata", "source"}``), ``sources`` where they come from. ``trace``
    tells for each lane what became of it and how long it took, and whether the answer is ``degraded``.
    """

    contextText: str  # noqa: N815 - the name that the reference gives it
    profile: dict[str, Any] | None
    working: list[dict[str, Any]]
    permanent: list[dict[str, Any]]
    org: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    trace: dict[str, Any]


def parse_search_result(reply: dict[str, Any]) -> SearchResult:
    lists = [reply.get(name) for name in ("working", "permanent", "org", "sources")]
    context, profile, trace = reply.get("contextText"), reply.get("profile"), reply.get("trace")
    is_complete = isinstance(context, str) and isinstance(trace, dict) and all(isinstance(hits, list) for hits in lists)
    if not is_complete or not isinstance(profile, dict | None):
        raise MemoAirVoiceMemoryError("runtime.internal", "the runtime's answer is not that to a search", 200)
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
    error: MemoAirVoiceMemoryError, lanes: Sequence[str] | None, timeout_ms: float, elapsed_ms: float
) -> SearchResult:
    """What a search gives where the memory failed: nothing, and why."""
    status = "late" if error.code == "runtime.timeout" else "error"
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
class IndexBuildResult:
    """An org index that was built or appended to."""

    index_name: str
    chunk_count: int  # number of chunks created or appended
    version: int | None  # monotonic, bumped per call


@dataclass(frozen=True)
class IndexLoadResult:
    """A caller's memory that was made ready."""

    session_id: str
    profile_version: int | None
    permanent_manifest_version: int | None
    org_manifest_version: int | None
    scopes_loaded: list[str]
