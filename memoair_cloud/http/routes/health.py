"""Routes for operators: liveness, readiness and metrics."""

from contextlib import suppress

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from memoair_cloud.errors import InternalServerError, InvalidKeyError, InvalidRequestError, ServiceUnavailableError
from memoair_cloud.http.dependencies import ServicesDep
from memoair_cloud.http.errors import error_responses
from memoair_cloud.http.metrics_access import check_may_read_metrics
from memoair_cloud.http.schemas.base import StatusOut
from memoair_cloud.memories.model_usage import get_model_usage
from memoair_cloud.operations import get_backlog, list_dead_letters
from memoair_protocol.timestamps import utc_now

router = APIRouter(tags=["operations"])


@router.get("/healthz", operation_id="isAlive", responses=error_responses([InternalServerError]))
async def healthz() -> StatusOut:
    """Report that the process is alive.

    It does not access the database, and as a coroutine it needs no thread: all threads may be waiting for the database.
    """
    return StatusOut()


@router.get(
    "/readyz", operation_id="isReady", responses=error_responses([InternalServerError, ServiceUnavailableError])
)
async def readyz(services: ServicesDep) -> StatusOut:
    """Check that the database and the blob store take writes, and that the database has the tables of this version.

    The response comes within a few seconds, whatever hangs.
    """
    await services.readiness.check()
    return StatusOut()


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}},
        **error_responses([InternalServerError, InvalidKeyError, InvalidRequestError]),
    },
)
def metrics(request: Request, services: ServicesDep) -> Response:
    """Return the metrics in Prometheus format, to this machine or with the token of the settings."""
    check_may_read_metrics(request, services.settings)
    with suppress(SQLAlchemyError):  # the request metrics are still reported
        _refresh_gauges(services)
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _refresh_gauges(services: ServicesDep) -> None:
    metrics, now = services.metrics, utc_now()
    backlog = get_backlog(services.engine)
    metrics.waiting.labels("learn").set(backlog.calls)
    metrics.waiting.labels("build").set(backlog.builds)
    metrics.waiting.labels("evaluate").set(backlog.runs)
    oldest = backlog.oldest_call_at
    metrics.oldest_call_s.set(0 if oldest is None else (now - oldest).total_seconds())
    dead = list_dead_letters(services.engine)
    for work in ("learn", "build"):
        metrics.dead_letters.labels(work).set(sum(letter.count for letter in dead if letter.work == work))
    metrics.model.usage = get_model_usage(services.engine)
