"""The FastAPI application: its routes, its error handlers, and the services behind it."""

import logging
from datetime import timedelta

from fastapi import FastAPI

from memoair_cloud.assets import files
from memoair_cloud.consolidation import ChatEndpoint, ChatExtractor, Extractor, ModelPrices, RuleExtractor
from memoair_cloud.dashboard.router import add_dashboard
from memoair_cloud.database.engine import make_engine
from memoair_cloud.http.dependencies import Services
from memoair_cloud.http.errors import add_error_handlers
from memoair_cloud.http.exact_path import ExactPath
from memoair_cloud.http.middleware import CloudMetrics, ObservabilityMiddleware
from memoair_cloud.http.rate_limit import RateLimit
from memoair_cloud.http.request_guard import BodyTimeout, SingleHeaders
from memoair_cloud.http.routes import (
    analytics,
    api_docs,
    audit,
    calls,
    document_sets,
    evaluation_runs,
    evaluations,
    health,
    indexes,
    memories,
    outcomes,
    projections,
    projects,
    prompts,
    recall_traces,
    replays,
    retention,
    uploads,
)
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.memories.extraction_worker import ExtractionWorker
from memoair_cloud.memories.model_usage import ModelAccounting
from memoair_cloud.queue import WorkQueue
from memoair_cloud.settings import CloudSettings
from memoair_cloud.version import installed_version
from memoair_evaluation.judge import Judge

log = logging.getLogger(__name__)


def make_services(settings: CloudSettings) -> Services:
    """Create the services of an application. `memoair_cloud.database.migrate` must have migrated the database.

    Args:
        settings: The settings of the server.
    """
    if "time_zone" not in settings.model_fields_set:
        log.info("days are counted in UTC where no call says otherwise: set MEMOAIR_CLOUD_TIME_ZONE")
    engine = make_engine(settings.database_url)
    blobs = BlobStore(settings.blob_url)
    rate_limit = RateLimit(settings.requests_per_s, settings.requests_at_once)
    extraction_worker = ExtractionWorker(
        engine,
        _make_extractor(settings),
        timedelta(seconds=settings.session_idle_s),
        settings.make_speaker_time(),
        _make_accounting(settings),
    )
    metrics, judge = CloudMetrics(), _make_judge(settings)
    queue = WorkQueue(
        engine,
        blobs,
        extraction_worker,
        on_dropped=metrics.record_dropped,
        judge=judge,
        on_scored=metrics.evaluation_cases.inc,
    )
    return Services(engine, blobs, queue, rate_limit, metrics, settings, judge=judge)


def create_app(services: Services) -> FastAPI:
    """Create the application.

    Args:
        services: The services behind the routes. Closing them stays the caller's task.
    """
    app = FastAPI(
        title="MemoAir cloud",
        version=installed_version(),
        description="The memory of voice agents, shared by many machines.",
        docs_url=None,  # the framework's page loads its scripts from another host; ours is in `api_docs`
        redoc_url=None,
        # Accept JSON without a content type: clients forget it, and there are no cookies that a web page could misuse.
        strict_content_type=False,
        # Answer a path with a trailing slash with 404 in the envelope, not with a redirect.
        redirect_slashes=False,
    )
    app.state.services = services
    add_error_handlers(app)
    app.add_middleware(ExactPath)
    app.add_middleware(BodyTimeout, timeout_s=services.settings.body_timeout_s)
    app.add_middleware(SingleHeaders)
    app.add_middleware(ObservabilityMiddleware, metrics=services.metrics)
    # The traces of a session before the session: its id may have slashes.
    resources = (
        projects,
        recall_traces,
        calls,
        outcomes,
        analytics,
        memories,
        retention,
        uploads,
        indexes,
        projections,
        prompts,
    )
    for module in (*resources, evaluations, evaluation_runs, replays, document_sets, audit, health, api_docs, files):
        app.include_router(module.router)
    if services.settings.dashboard:
        add_dashboard(app, services)
    return app


def _make_extractor(settings: CloudSettings) -> Extractor:
    if settings.chat_base_url is None or settings.chat_model is None:
        return RuleExtractor()
    key = settings.chat_api_key.get_secret_value()
    endpoint = ChatEndpoint(settings.chat_base_url, settings.chat_model, key, max_chars=settings.chat_window_chars)
    return ChatExtractor(endpoint)


def _make_accounting(settings: CloudSettings) -> ModelAccounting:
    prices = _make_prices(settings.chat_prompt_price, settings.chat_completion_price, settings.chat_cached_price)
    return ModelAccounting(prices, settings.chat_daily_tokens)


def _make_judge(settings: CloudSettings) -> Judge | None:
    if settings.judge_base_url is None or settings.judge_model is None:
        return None
    endpoint = ChatEndpoint(settings.judge_base_url, settings.judge_model, settings.judge_api_key.get_secret_value())
    prices = _make_prices(settings.judge_prompt_price, settings.judge_completion_price, settings.judge_cached_price)
    return Judge(endpoint, prices)


def _make_prices(prompt: float | None, completion: float | None, cached: float | None) -> ModelPrices | None:
    return None if prompt is None or completion is None else ModelPrices(prompt, completion, cached)
