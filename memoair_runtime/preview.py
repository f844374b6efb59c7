"""Preview a search: the same lanes and context builder as in a runtime, over data that is given instead of stored.

The cloud shows with it what an agent would get. Nothing is written, and no process is started.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import attrs
import msgspec

from memoair_index import Index, document_group, split_document
from memoair_protocol.enums import LaneName, Variant
from memoair_protocol.interruption import truncate_to_heard
from memoair_runtime.errors import BadRequestError
from memoair_runtime.filters import parse_filter
from memoair_runtime.memory.facts import lasting_fact_texts
from memoair_runtime.memory.profile import CloudProfile, UserProfile
from memoair_runtime.memory.reranker import BackgroundReranker
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.org.lane import OrgLane
from memoair_runtime.org.reranker import OrgReranker
from memoair_runtime.org.source import LoadedOrgIndex, VersionKey
from memoair_runtime.readiness import ReadinessGate
from memoair_runtime.recall.context_builder import Budgets
from memoair_runtime.recall.lanes.lane import Lane
from memoair_runtime.recall.lanes.permanent_lane import PermanentLane
from memoair_runtime.recall.lanes.profile_lane import ProfileLane
from memoair_runtime.recall.lanes.working_lane import WorkingLane
from memoair_runtime.recall.search_service import SearchService
from memoair_runtime.requests import BodyParser, SearchRequest
from memoair_runtime.storage.events import Event, is_valid
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.replica_file import ReplicaFact
from memoair_runtime.transformer_model import TransformerModel

__all__ = [
    "Budgets",
    "InvalidSearchError",
    "PreviewData",
    "PreviewDocuments",
    "PreviewUser",
    "PreviewedMemory",
    "check_filter",
    "open_preview",
    "preview_search",
]

# A reply comes by its deadline, or a moment after it. This is for a fault.
_MAX_WAIT_S = 60.0
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
class PreviewData:
    """What is known, as the projections of a cloud have it.

    Attributes:
        profile: The profile of the user; None without a user.
        events: The events of the user's sessions.
        facts: The facts about the user.
        index_file: The index file of the documents, if there is one.
        documents: Documents that were added or changed since the file was built: ``indexName``, ``id``, ``text``,
            ``metadata``.
        removed: Those that were removed since then: ``indexName`` and ``id``.
    """

    profile: Mapping[str, Any] | None = None
    events: Sequence[Mapping[str, Any]] = ()
    facts: Sequence[Mapping[str, Any]] = ()
    index_file: Path | None = None
    documents: Sequence[Mapping[str, Any]] = ()
    removed: Sequence[Mapping[str, Any]] = ()


@attrs.frozen
class PreviewedMemory:
    """The memory of a user and the documents of their project, to be searched. Made by `open_preview`."""

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
        replies: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        try:
            request = _parse_search(msgspec.json.encode(search))
            self._memory.index_pending()
            self._service.search(
                request, frozenset(LaneName), Variant.DEFAULT, [], time.monotonic(), replies.put, now=now
            )
            return dict(replies.get(timeout=_MAX_WAIT_S))
        except BadRequestError as error:
            raise InvalidSearchError(error.message) from None


@contextmanager
def open_preview(data: PreviewData, budgets: Budgets | None = None) -> Iterator[PreviewedMemory]:
    """Yield a memory to be searched any number of times, by one thread.

    Args:
        data: What is known.
        budgets: The size limits of the context.

    Raises:
        OSError: If the index file cannot be read.
    """
    memory = _build_memory(data)
    gate = ReadinessGate()
    gate.open()
    with tempfile.TemporaryDirectory(prefix="memoair-preview-") as folder:  # stays empty: nothing is reranked
        no_model = TransformerModel(None)
        reranker = BackgroundReranker(no_model, Path(folder) / "vectors", memory.get_documents)
        org_reranker = OrgReranker(no_model, ProjectFolder(Path(folder), "preview"))
        org_lane = OrgLane(_FixedOrg(_open_index(data)), memory.get_recent_texts, org_reranker)
        org_lane.load()
        lanes: list[Lane] = [ProfileLane(memory), WorkingLane(memory), PermanentLane(memory, gate, reranker), org_lane]
        service = SearchService(lanes, RuntimeMetrics(), budgets)
        try:
            yield PreviewedMemory(memory, service)
        finally:
            service.close()


def preview_search(data: PreviewData, search: Mapping[str, Any], budgets: Budgets | None = None) -> dict[str, Any]:
    """Return the reply that a runtime with this data would give.

    Args:
        data: What is known.
        search: The body of a search, as in ``POST /v1/runtime/search_memory``.
        budgets: The size limits of the context.

    Raises:
        InvalidSearchError: If the search is invalid.
        OSError: If the index file cannot be read.
    """
    with open_preview(data, budgets) as memory:
        return memory.search(search)


def check_filter(filter_: Mapping[str, Any]) -> None:
    """Check a condition on metadata, as a search has it.

    Raises:
        InvalidSearchError: If it is invalid.
    """
    try:
        parse_filter(filter_)
    except BadRequestError as error:
        raise InvalidSearchError(error.message) from None


def _build_memory(data: PreviewData) -> UserMemory:
    memory = UserMemory(UserProfile())
    for content in data.events:
        _apply_event(memory, content)
    facts = {fact.id: fact for fact in (msgspec.convert(content, ReplicaFact) for content in data.facts)}
    memory.add_facts(list(facts.values()))
    profile = CloudProfile() if data.profile is None else msgspec.convert(data.profile, CloudProfile)
    memory.set_derived_profile(profile, lasting_fact_texts(facts))
    return memory


def _apply_event(memory: UserMemory, content: Mapping[str, Any]) -> None:
    event = msgspec.convert(content, Event)
    if is_valid(event):
        memory.apply_event(msgspec.structs.replace(event, payload=truncate_to_heard(event.payload)))


def _open_index(data: PreviewData) -> Index:
    index = Index() if data.index_file is None else Index.open(data.index_file)
    for document in (*data.removed, *data.documents):
        group = document_group(document["id"], document["indexName"])
        index.remove([chunk.id for chunk in index.group_documents(group)])
    index.add(
        chunk
        for document in data.documents
        for chunk in split_document(document["id"], document["text"], document["metadata"], document["indexName"])
    )
    return index


@attrs.frozen
class _FixedOrg:
    """The `OrgSource` of an index that does not change."""

    index: Index
    description: str = "the given documents"
    poll_interval_s: float | None = None

    def version_key(self) -> VersionKey | None:
        return (0,)

    def load_index(self) -> LoadedOrgIndex:
        return LoadedOrgIndex(self.index, 0)

    def rebuild(self) -> LoadedOrgIndex:
        return self.load_index()
