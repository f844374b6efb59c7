"""Whether the server lives, whether it can work, and how it does."""

from contextlib import suppress

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from memoair_cloud.database.migrate import is_current
from memoair_cloud.errors import InternalServerError, ServiceUnavailableError
from memoair_cloud.http.dependencies import ServicesDep
from memoair_cloud.http.errors import documented
from memoair_cloud.http.schemas.base import StatusOut
from memoair_cloud.operations import backlog, dead_letters
from memoair_cloud.timeutil import utc_now

router = APIRouter(tags=["operations"])


@router.get("/healthz", operation_id="isAlive", responses=documented([InternalServerError]))
async def healthz() -> StatusOut:
    """Whether the process lives; asks nobody else, and needs no thread, all of which may wait for the database."""
    return StatusOut()


@router.get("/readyz", operation_id="isReady", responses=documented([InternalServerError, ServiceUnavailableError]))
def readyz(behind: ServicesDep) -> StatusOut:
    """Whether the database, with the tables of this version, and the blob store can be used."""
    try:
        with behind.engine.connect() as connection:
            connection.execute(select(1))
            current = is_current(connection)
    except SQLAlchemyError:
        raise ServiceUnavailableError("the database does not answer", store="database") from None
    if not current:
        raise ServiceUnavailableError("the database has the tables of another version", store="database")
    behind.blobs.check()
    return StatusOut()


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **documented([InternalServerError])},
)
def metrics(behind: ServicesDep) -> Response:
    """What Prometheus reads."""
    with suppress(SQLAlchemyError):  # what the requests came to is told all the same
        _look(behind)
    return Response(generate_latest(behind.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _look(behind: ServicesDep) -> None:
    metrics, now = behind.metrics, utc_now()
    waiting = backlog(behind.engine)
    metrics.waiting.labels("learn").set(waiting.calls)
    metrics.waiting.labels("build").set(waiting.builds)
    oldest = waiting.oldest_call_at
    metrics.oldest_call_s.set(0 if oldest is None else (now - oldest).total_seconds())
    dead = dead_letters(behind.engine)
    for work in ("learn", "build"):
        metrics.dead_letters.labels(work).set(sum(each.count for each in dead if each.work == work))
