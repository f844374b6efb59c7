"""Ask a question as a caller, or as none, and see the context that an agent would get, and why.

The data is what a machine would pull now, so the answer is the one that an agent gets whose machine is in sync.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from memoair_cloud.errors import InvalidRequestError, ServiceUnavailableError
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.projections.org import build_org_projection, get_org_file
from memoair_cloud.projections.users import build_permanent_projection, build_profile_projection
from memoair_cloud.temporary_folders import PREVIEW_PREFIX
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_QUERY_CHARS
from memoair_protocol.temporary import temporary_folder
from memoair_runtime.preview import (
    Budgets,
    InvalidSearchError,
    OpenDocuments,
    PreviewDocuments,
    PreviewedMemory,
    PreviewUser,
    open_documents,
)

NEW_SESSION_ID = "preview"
# More than a search in a call has, because the server does other things, too.
DEFAULT_TIMEOUT_MS = 2_000
# Of some 2,000 turns each. With a caller of more turns, the rest is left out, and the page says so.
_MAX_PAGES = 10


@attrs.frozen
class Question:
    """A question to ask.

    Attributes:
        text: The question.
        user_id: The caller who asks; None for none.
        session_id: The call in which it is asked; by default a new one.
        before_event: The turn of that call with which it is asked: the turns from it on are left out.
        lanes: The lanes to ask; all by default.
        top_k: The maximum number of hits by lane.
        context_chars: The maximum characters of the context.
        lane_chars: The maximum characters of each lane's section.
        filter: A condition on metadata, as in a search of the SDK.
        min_confidence: Leave out hits of less confidence, 0 to 1.
        timeout_ms: How long the search may take.
    """

    text: str
    user_id: str | None = None
    session_id: str = NEW_SESSION_ID
    before_event: str | None = None
    lanes: tuple[LaneName, ...] = tuple(LaneName)
    top_k: Mapping[LaneName, int] = attrs.field(factory=dict)
    context_chars: int | None = None
    lane_chars: int | None = None
    filter: Mapping[str, Any] | None = None
    min_confidence: float | None = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS


@attrs.frozen
class Preview:
    """What an agent would get.

    Attributes:
        reply: The reply of the engine, as a runtime gives it, with ``trace.explain``.
        prepared_ms: How long it took to gather what is known, which a runtime has in memory.
        is_complete: Whether all turns of the caller took part.
    """

    reply: Mapping[str, Any]
    prepared_ms: float
    is_complete: bool


def ask(tenant: Tenant, blobs: BlobStore, question: Question) -> Preview:
    """Ask a question.

    Args:
        tenant: The project.
        blobs: The store of index files.
        question: The question.

    Raises:
        InvalidRequestError: If a part of the question is invalid.
        ServiceUnavailableError: If the index file cannot be read.
    """
    if not question.text.strip() or len(question.text) > MAX_QUERY_CHARS:
        raise InvalidRequestError(f"a question has 1 to {MAX_QUERY_CHARS} characters", field="q")
    started_at = time.monotonic()
    user, is_complete = PreviewUser(), True
    if question.user_id is not None:
        user, is_complete = _load_user_then(tenant, question.user_id, question)
    defaults = Budgets()
    budgets = Budgets(
        question.context_chars or defaults.context_chars,
        question.lane_chars or defaults.lane_chars,
    )
    with open_present_documents(tenant, blobs) as documents:
        memory = documents.open_user(user, budgets)
        prepared_ms = (time.monotonic() - started_at) * 1e3
        try:
            reply = memory.search(_to_search(question))
        except InvalidSearchError as error:
            raise InvalidRequestError(str(error)) from None
    return Preview(reply, prepared_ms, is_complete)


@contextmanager
def open_preview_of_user(tenant: Tenant, blobs: BlobStore, user_id: str) -> Iterator[PreviewedMemory]:
    """Yield the memory of a user as a machine would have it now, to be searched any number of times by one thread.

    Args:
        tenant: The project.
        blobs: The store of index files.
        user_id: The user, who may be unknown.

    Raises:
        ServiceUnavailableError: If the index file cannot be read.
    """
    user, _ = load_user(tenant, user_id)
    with open_present_documents(tenant, blobs) as documents:
        yield documents.open_user(user)


def _to_search(question: Question) -> dict[str, Any]:
    search: dict[str, Any] = {
        "sessionId": question.session_id,
        "query": question.text,
        "lanes": [lane.value for lane in question.lanes],
        "topK": {lane.value: limit for lane, limit in question.top_k.items()},
        "timeoutMs": question.timeout_ms,
        "explain": True,
    }
    if question.filter:
        search["filter"] = question.filter
    if question.min_confidence is not None:
        search["minConfidence"] = question.min_confidence
    return search


def load_user(tenant: Tenant, user_id: str) -> tuple[PreviewUser, bool]:
    """Return what a machine would pull of a user now, and whether it is all: of very many turns, some are left out."""
    profile = build_profile_projection(tenant, user_id, None, None)
    events: list[Any] = []
    facts: dict[str, Any] = {}
    since: int | None = None
    for _ in range(_MAX_PAGES):
        page = build_permanent_projection(tenant, user_id, since, None)
        if page is None:
            break
        events += page["events"]
        facts |= {fact["id"]: fact for fact in page["facts"]}
        since = page["version"]
        if not page["more"]:
            break
    is_complete = page is None or not page["more"]
    return PreviewUser(profile, events, list(facts.values())), is_complete


def _load_user_then(tenant: Tenant, user_id: str, question: Question) -> tuple[PreviewUser, bool]:
    """Return what `load_user` does, without what was said in the question's call from its turn on."""
    user, is_complete = load_user(tenant, user_id)
    seqs = [event["seq"] for event in user.events if event["eventId"] == question.before_event]
    if not seqs:
        return user, is_complete
    events = [event for event in user.events if event["sessionId"] != question.session_id or event["seq"] < seqs[0]]
    return attrs.evolve(user, events=events), is_complete


@contextmanager
def open_present_documents(tenant: Tenant, blobs: BlobStore) -> Iterator[OpenDocuments]:
    """Yield the documents of a project as they are now.

    Raises:
        ServiceUnavailableError: If the index file cannot be read.
    """
    with load_present_documents(tenant, blobs) as documents:
        try:
            opened = open_documents(documents)
        except OSError:
            raise ServiceUnavailableError("the index file of the documents cannot be read", store="blobs") from None
        yield opened


@contextmanager
def load_present_documents(tenant: Tenant, blobs: BlobStore) -> Iterator[PreviewDocuments]:
    """Yield the index file of the documents in a temporary folder, and what changed since it was built.

    Raises:
        ServiceUnavailableError: If the index file cannot be read.
    """
    sha256, changes = _list_document_changes(tenant)
    if sha256 is None:
        yield changes
        return
    with temporary_folder(PREVIEW_PREFIX) as folder:
        path = folder / "org.index"
        try:
            with path.open("wb") as target:
                for block in blobs.stream(sha256)[1]:
                    target.write(block)
        except OSError:
            raise ServiceUnavailableError("the index file of the documents cannot be read", store="blobs") from None
        yield attrs.evolve(changes, index_file=path)


def _list_document_changes(tenant: Tenant) -> tuple[str | None, PreviewDocuments]:
    """Return the hash of the latest index file, and the documents that changed since; all of them without a file."""
    with tenant.begin_read() as session:
        file = get_org_file(session)
    since = 0 if file is None else file["version"]
    documents, removed = [], []
    while (page := build_org_projection(tenant, since)) is not None:
        documents += page["documents"]
        removed += page["removed"]
        since = page["version"]
        if not page["more"]:
            break
    return None if file is None else file["sha256"], PreviewDocuments(documents=documents, removed=removed)
