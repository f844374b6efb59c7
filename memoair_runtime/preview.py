"""Preview a search: the same lanes and context builder as in a runtime, over data that is given instead of stored.

The cloud shows with it what an agent would get, and evaluations ask thousands of questions. The documents are opened
once, for any number of users. Nothing is written, and neither a thread nor a process is started.
"""

import errno
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_index import ContainerError, Index, document_group, split_document
from memoair_protocol.enums import LaneName, TraceMode, Variant
from memoair_protocol.interruption import truncate_to_heard
from memoair_protocol.timestamps import format_utc
from memoair_runtime.errors import BadRequestError
from memoair_runtime.filters import parse_filter
from memoair_runtime.memory.facts import lasting_fact_texts
from memoair_runtime.memory.profile import CloudProfile, UserProfile
from memoair_runtime.memory.turn import from_timestamp
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.org.answer import DEFAULT_LIMIT, answer_from_documents
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.recall.context_builder import Budgets, ComposedContext, compose_context
from memoair_runtime.recall.inline_executor import InlineExecutor
from memoair_runtime.recall.lane_executor import answers_of
from memoair_runtime.recall.lanes.lane import Lane, LaneAnswer, LaneQuery, SourceKey
from memoair_runtime.recall.lanes.permanent_lane import PermanentLane
from memoair_runtime.recall.lanes.profile_lane import ProfileLane
from memoair_runtime.recall.lanes.working_lane import WorkingLane
from memoair_runtime.recall.search_service import SearchService
from memoair_runtime.recall.trace_record import FinishedSearch, build_record
from memoair_runtime.requests import BodyParser, SearchRequest
from memoair_runtime.storage.events import Event, is_valid
from memoair_runtime.storage.replica_file import ReplicaFact

__all__ = [
    "Budgets",
    "ComposedContext",
    "InvalidSearchError",
    "OpenDocuments",
    "PreviewDocuments",
    "PreviewUser",
    "PreviewedMemory",
    "PreviewedSearch",
    "SourceKey",
    "check_filter",
    "open_documents",
]

_parse_search = BodyParser(SearchRequest)


class InvalidSearchError(ValueError):
    """The search is invalid; the message names the field and not its value."""


@attrs.frozen
class PreviewUser:
    """What is known of a user, as the projections of a cloud have it.

    Attributes:
        profile: The profile of the user; None without a user.
        events: The events of the user's sessions.
        facts: The facts about the user.
    """

    profile: Mapping[str, Any] | None = None
    events: Sequence[Mapping[str, Any]] = ()
    facts: Sequence[Mapping[str, Any]] = ()


@attrs.frozen
class PreviewDocuments:
    """The documents of a project, as its projection has them.

    Attributes:
        index_file: The index file of the documents, if there is one.
        documents: Documents that were added or changed since the file was built: ``indexName``, ``id``, ``text``,
            ``metadata``.
        removed: Those that were removed since then: ``indexName`` and ``id``.
    """

    index_file: Path | None = None
    documents: Sequence[Mapping[str, Any]] = ()
    removed: Sequence[Mapping[str, Any]] = ()


@attrs.frozen
class PreviewedSearch:
    """A search, and what it has found.

    Attributes:
        reply: The reply that a runtime would give.
        record: The record of the search, as a recall trace of the mode ``ids`` has it.
        contexts: The context of the reply, then that of each further budget that was asked for.
        ended_ms: When each lane had answered, in milliseconds from the start of the first one.
    """

    reply: dict[str, Any]
    record: dict[str, Any]
    contexts: tuple[ComposedContext, ...]
    ended_ms: Mapping[LaneName, float]


@attrs.frozen
class PreviewedMemory:
    """The memory of a user and the documents of their project, to be searched any number of times, by one thread."""

    _memory: UserMemory
    _service: SearchService

    def apply_event(self, event: Mapping[str, Any]) -> None:
        """Add an event, such as the next turn of a call."""
        _apply_event(self._memory, event)

    def search(self, search: Mapping[str, Any], now: float | None = None) -> dict[str, Any]:
        """Return the reply that a runtime would give.

        Args:
            search: The body of a search, as in ``POST /v1/runtime/search_memory``.
            now: When it is asked, in seconds since the epoch; None for now.

        Raises:
            InvalidSearchError: If the search is invalid.
        """
        return self._run(search, now)[0]

    def trace(
        self, search: Mapping[str, Any], now: float | None = None, other_budgets: Sequence[Budgets] = ()
    ) -> PreviewedSearch:
        """Search, and return what was found in detail; raises as `search`.

        Args:
            search: The body of a search.
            now: When it is asked, in seconds since the epoch; None for now.
            other_budgets: Further size limits, for each of which a context is built of the same hits.
        """
        reply, finished = self._run(search, now)
        answers, says_nothing_found = answers_of(finished.outcomes), bool(finished.request.say_nothing_found)
        record = build_record(finished, TraceMode.IDS)
        if now is not None:
            record["occurredAt"] = format_utc(from_timestamp(now))
        ended_ms, elapsed_ms = {}, 0.0
        for name, outcome in finished.outcomes.items():
            elapsed_ms += outcome.duration_ms
            ended_ms[name] = elapsed_ms
        return PreviewedSearch(
            reply=reply,
            record=record,
            contexts=(
                finished.context,
                *(
                    compose_context(answers, budgets, says_nothing_found=says_nothing_found)
                    for budgets in other_budgets
                ),
            ),
            ended_ms=ended_ms,
        )

    def _run(self, search: Mapping[str, Any], now: float | None) -> tuple[dict[str, Any], FinishedSearch]:
        replies: list[dict[str, Any]] = []
        finished: list[FinishedSearch] = []
        try:
            request = _parse_search(msgspec.json.encode(search))
            self._memory.index_pending()
            self._service.search(
                request,
                frozenset(LaneName),
                Variant.DEFAULT,
                [],
                time.monotonic(),
                replies.append,
                finished.append,
                now,
            )
        except BadRequestError as error:
            raise InvalidSearchError(error.message) from None
        return replies[0], finished[0]


class OpenDocuments:
    """Documents that are open, to be searched for any number of users. Thread-safe. Made by `open_documents`."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # What does not depend on the user, and takes longer to make than a search does.
        self._metrics = RuntimeMetrics()
        self._gate = ReadinessGate()
        self._gate.open()

    def open_user(
        self, user: PreviewUser, budgets: Budgets | None = None, *, keeps_deadline: bool = True
    ) -> PreviewedMemory:
        """Return the memory of a user over these documents, to be searched by one thread.

        Args:
            user: What is known of the user.
            budgets: The size limits of the context.
            keeps_deadline: Whether a lane that takes longer than a search may is left out, as in a runtime. Without,
                the reply does not depend on how fast the machine is.
        """
        memory = _build_memory(user)
        lanes: list[Lane] = [
            ProfileLane(memory),
            WorkingLane(memory),
            PermanentLane(memory, self._gate),
            _FixedOrgLane(self._index, memory),
        ]
        executor = InlineExecutor(keeps_deadline=keeps_deadline)
        return PreviewedMemory(memory, SearchService(lanes, self._metrics, budgets, executor))


def open_documents(documents: PreviewDocuments) -> OpenDocuments:
    """Open documents to search them. Their index file may be deleted once no search will follow.

    Args:
        documents: The documents.

    Raises:
        OSError: If the index file cannot be read, or is damaged.
    """
    try:
        index = Index() if documents.index_file is None else Index.open(documents.index_file)
        index.verify()  # also reads the file from end to end, so that no search waits for the disk
    except ContainerError as error:
        raise OSError(errno.EIO, f"the index file is damaged: {error}", str(documents.index_file)) from None
    for document in (*documents.removed, *documents.documents):
        group = document_group(document["id"], document["indexName"])
        index.remove([chunk.id for chunk in index.group_documents(group)])
    index.add(
        chunk
        for document in documents.documents
        for chunk in split_document(document["id"], document["text"], document["metadata"], document["indexName"])
    )
    return OpenDocuments(index)


def check_filter(filter_: Mapping[str, Any]) -> None:
    """Check a condition on metadata, as a search has it.

    Raises:
        InvalidSearchError: If it is invalid.
    """
    try:
        parse_filter(filter_)
    except BadRequestError as error:
        raise InvalidSearchError(error.message) from None


def _build_memory(user: PreviewUser) -> UserMemory:
    memory = UserMemory(UserProfile())
    for content in user.events:
        _apply_event(memory, content)
    facts = {fact.id: fact for fact in (msgspec.convert(content, ReplicaFact) for content in user.facts)}
    memory.add_facts(list(facts.values()))
    profile = CloudProfile() if user.profile is None else msgspec.convert(user.profile, CloudProfile)
    memory.set_derived_profile(profile, lasting_fact_texts(facts))
    return memory


def _apply_event(memory: UserMemory, content: Mapping[str, Any]) -> None:
    event = msgspec.convert(content, Event)
    if is_valid(event):
        memory.apply_event(msgspec.structs.replace(event, payload=truncate_to_heard(event.payload)))


class _FixedOrgLane:
    """The lane of documents that do not change, as `memoair_runtime.org.lane.OrgLane` answers."""

    name = LaneName.ORG
    default_limit = DEFAULT_LIMIT
    readiness = Readiness.READY

    def __init__(self, index: Index, memory: UserMemory) -> None:
        self._index = index
        self._memory = memory

    def search(self, query: LaneQuery) -> LaneAnswer:
        return answer_from_documents(self._index, query, self._memory.get_recent_texts(query.session_id))
