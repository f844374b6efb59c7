"""Build the index files of document sets in the background, and remove what is over.

A copy of the present documents is that of the project's index file, which is built first if it is outdated. So a run
searches the very file that machines have.
"""

import logging
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from memoair_cloud.database.evaluation_models import EvaluationDocumentSet, EvaluationRun
from memoair_cloud.database.leases import is_over
from memoair_cloud.database.models import OrgBuild, OrgDocument, Project
from memoair_cloud.evaluation.document_set_states import DocumentSetState
from memoair_cloud.evaluation.document_sets import (
    EXPIRES_AFTER,
    add_set_row,
    file_key,
    find_open_run,
    move_set,
    part_key,
    remove_files,
)
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.builder import build_org_index
from memoair_cloud.temporary_folders import BUILD_PREFIX
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_index import Document, Index, split_document
from memoair_protocol.hashes import hash_file
from memoair_protocol.starvation import is_starved
from memoair_protocol.temporary import temporary_folder
from memoair_protocol.timestamps import utc_now

log = logging.getLogger(__name__)

# A worker renews its claim while it builds. Copying takes as long as building the project's index file does.
CLAIM = timedelta(minutes=10)
MAX_FAILURES = 3
# A copy for runs is kept for this long, for other runs of the same documents.
PINNED_FOR = timedelta(hours=1)
# A server that is writing a part of a set may do so for this long after the set was removed.
REMOVED_FOR = timedelta(hours=1)
_RENEW_AFTER_DOCUMENTS = 500
PRESENT = "present documents"


class _LostSetError(Exception):
    """The set was removed, or another worker has taken it over."""


def due_condition(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a set is to be built, expired or cleaned up."""
    row = EvaluationDocumentSet
    searches = or_(EvaluationRun.document_set_id == row.id, EvaluationRun.present_set_id == row.id)
    same_project = EvaluationRun.project_id == row.project_id
    is_searched = select(EvaluationRun.id).where(same_project, searches, EvaluationRun.is_open).exists()
    return or_(
        and_(row.state == DocumentSetState.BUILDING.value, is_over(row.claimed_until, now, CLAIM)),
        and_(row.state == DocumentSetState.RECEIVING.value, row.updated_at < now - EXPIRES_AFTER),
        and_(row.is_pinned, _is_settled(), row.updated_at < now - PINNED_FOR, ~is_searched),
        and_(_is_settled(), row.part_count > 0),
        and_(row.state == DocumentSetState.REMOVED.value, row.updated_at < now - REMOVED_FOR),
    )


def find_present_copy(session: ScopedSession, since: datetime) -> EvaluationDocumentSet | None:
    """Return a copy of the present documents for a run: of their present version, or made since the run was created.

    Returns:
        The latest such set, in whatever state; None without one.
    """
    row = EvaluationDocumentSet
    version = select(Project.org_version).where(Project.id == session.scope.project_id).scalar_subquery()
    is_suitable = and_(row.is_pinned, row.state != DocumentSetState.REMOVED.value)
    statement = select(row).where(is_suitable, or_(row.org_version == version, row.created_at >= since))
    latest_first = statement.order_by(row.created_at.desc(), row.id.desc()).limit(1)
    return session.scalar(latest_first.with_for_update(read=True))


def ensure_present_copy(tenant: Tenant, since: datetime) -> None:
    """Add a copy of the present documents, unless there is one or the project has no documents."""
    with tenant.begin_write() as session:
        version = session.scalar(select(Project.org_version).where(Project.id == session.scope.project_id))
        found = find_present_copy(session, since)
        if version and (found is None or (found.state == DocumentSetState.FAILED.value and found.created_at < since)):
            add_set_row(session, PRESENT, copies_present=True, is_pinned=True)


def build_document_sets(tenant: Tenant, blobs: BlobStore) -> None:
    """Build the sets of a project that are due. Concurrent workers do not collide.

    Raises:
        OSError: If the blob store does not respond. The sets stay as they are, and are built later.
    """
    while (row := _claim(tenant)) is not None:
        try:
            if row.org_version is not None:
                _copy_present(tenant, blobs, row)
            else:
                _build(tenant, blobs, row)
        except _LostSetError:
            log.info("a document set was removed since", extra={"action": "document_set_lost"})
        except OSError:
            _release(tenant, row)
            raise
        except (OperationalError, InterfaceError, PoolTimeout):
            raise  # no database: the claim expires
        except Exception as error:
            if is_starved(error):
                _release(tenant, row)
                raise
            # Only the type: a message may quote a document.
            failure = type(error).__name__
            log.error("a document set failed", extra={"action": "document_set_failed", "fields": {"error": failure}})
            _fail(tenant, row, f"the index file could not be built: {failure}")


def clean_up_document_sets(tenant: Tenant, blobs: BlobStore) -> None:
    """Remove sets that are over, and what is left of them in the blob store. Raises OSError.

    The files of a removed set are removed at once, and again when nothing can write them any more, with its row.
    """
    now = utc_now()
    row = EvaluationDocumentSet
    is_expired = and_(row.state == DocumentSetState.RECEIVING.value, row.updated_at < now - EXPIRES_AFTER)
    is_unused = and_(row.is_pinned, _is_settled(), row.updated_at < now - PINNED_FOR)
    removed: list[EvaluationDocumentSet] = []
    with tenant.begin_write() as session:
        for each in session.scalars(select(row).where(or_(is_expired, is_unused)).with_for_update(key_share=True)):
            if find_open_run(session, each.id) is None:
                move_set(each, DocumentSetState.REMOVED)
                session.flush()
                removed.append(each)
    is_left = row.state == DocumentSetState.REMOVED.value, row.updated_at < now - REMOVED_FOR
    with tenant.begin_read() as session:
        removed += session.scalars(select(row).where(*is_left))
        with_parts = session.scalars(select(row).where(_is_settled(), row.part_count > 0)).all()
    for each in removed:
        remove_files(tenant, blobs, each)
    for each in with_parts:
        _remove_parts(tenant, blobs, each)
    with tenant.begin_write() as session:
        for each in session.scalars(select(row).where(*is_left)):
            session.delete(each)


def _is_settled() -> ColumnElement[bool]:
    return EvaluationDocumentSet.state.in_([DocumentSetState.READY.value, DocumentSetState.FAILED.value])


def _claim(tenant: Tenant) -> EvaluationDocumentSet | None:
    """Take a set that is due for this worker, and return it."""
    now, row = utc_now(), EvaluationDocumentSet
    is_due = and_(row.state == DocumentSetState.BUILDING.value, is_over(row.claimed_until, now, CLAIM))
    statement = select(row).where(is_due).order_by(row.created_at, row.id)
    with tenant.begin_write() as session:
        for found in session.scalars(statement.with_for_update(skip_locked=True, key_share=True)):
            if found.claim is not None:  # its worker did not come back
                found.failures += 1
            if found.failures < MAX_FAILURES:
                found.claim, found.claimed_until = secrets.token_hex(8), now + CLAIM
                return found
            move_set(found, DocumentSetState.FAILED)
            found.failure = f"interrupted {found.failures} times"
    return None


def _build(tenant: Tenant, blobs: BlobStore, row: EvaluationDocumentSet) -> None:
    documents: dict[tuple[str, str], dict[str, Any]] = {}
    for number in range(row.part_count):
        try:
            content = b"".join(blobs.stream(part_key(tenant, row.id, number))[1])
        except FileNotFoundError:  # the request that sent it has failed, and said so
            continue
        for document in msgspec.json.decode(content):
            documents[document["indexName"], document["id"]] = document
    index = Index()
    index.add(_split(documents.values(), lambda: _renew(tenant, row)))
    with temporary_folder(BUILD_PREFIX) as folder:
        path = folder / "documents.index"
        index.merge(path)
        _renew(tenant, row)
        with path.open("rb") as file:
            blobs.write(file_key(tenant, row.id), iter(lambda: file.read(1 << 20), b""))
        _finish(tenant, row, sha256=hash_file(path), size=path.stat().st_size, document_count=len(documents))
    _remove_parts(tenant, blobs, row)


def _split(documents: Collection[dict[str, Any]], renew: Callable[[], None]) -> Iterator[Document]:
    for number, each in enumerate(documents, 1):
        yield from split_document(each["id"], each["text"], each["metadata"], each["indexName"])
        if number % _RENEW_AFTER_DOCUMENTS == 0:
            renew()


def _copy_present(tenant: Tenant, blobs: BlobStore, row: EvaluationDocumentSet) -> None:
    build_org_index(tenant.engine, blobs, tenant.scope.project_id)
    _renew(tenant, row)
    with tenant.begin_read() as session:
        built = session.scalar(select(OrgBuild))
        live = select(func.count()).select_from(OrgDocument).where(OrgDocument.deleted_at.is_(None))
        count = session.scalar(live) or 0
    if built is None or built.sha256 is None:  # there never were documents
        _finish(tenant, row, org_version=0 if built is None else built.version)
        return
    size, blocks = blobs.stream(built.sha256)
    blobs.write(file_key(tenant, row.id), blocks)
    _finish(tenant, row, sha256=built.sha256, size=size, document_count=count, org_version=built.version)


def _finish(tenant: Tenant, row: EvaluationDocumentSet, **values: Any) -> None:
    with tenant.begin_write() as session:
        found = _check(session, row)
        move_set(found, DocumentSetState.READY)
        for name, value in values.items():
            setattr(found, name, value)


def _fail(tenant: Tenant, row: EvaluationDocumentSet, failure: str) -> None:
    with suppress(_LostSetError), tenant.begin_write() as session:
        found = _check(session, row)
        move_set(found, DocumentSetState.FAILED)
        found.failure = failure


def _renew(tenant: Tenant, row: EvaluationDocumentSet) -> None:
    with tenant.begin_write() as session:
        _check(session, row).claimed_until = utc_now() + CLAIM


def _check(session: ScopedSession, row: EvaluationDocumentSet) -> EvaluationDocumentSet:
    is_claimed = EvaluationDocumentSet.id == row.id, EvaluationDocumentSet.claim == row.claim
    found = session.scalar(select(EvaluationDocumentSet).where(*is_claimed).with_for_update(key_share=True))
    if found is None:
        raise _LostSetError
    return found


def _release(tenant: Tenant, row: EvaluationDocumentSet) -> None:
    with suppress(_LostSetError), tenant.begin_write() as session:
        found = _check(session, row)
        found.claim = found.claimed_until = None


def _remove_parts(tenant: Tenant, blobs: BlobStore, row: EvaluationDocumentSet) -> None:
    """Remove the parts of a set from the blob store; its documents are in the index file, if there is one."""
    for number in range(row.part_count):
        blobs.remove(part_key(tenant, row.id, number))
    with tenant.begin_write() as session:
        is_same = EvaluationDocumentSet.id == row.id, EvaluationDocumentSet.part_count == row.part_count
        session.execute(
            update(EvaluationDocumentSet).where(*is_same).values(part_count=0),
            execution_options={"synchronize_session": False},
        )
