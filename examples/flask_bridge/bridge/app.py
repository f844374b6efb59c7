"""The application: the webhooks of the enabled platforms, with one memory."""

import logging

from flask import Flask, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from bridge import completions, elevenlabs, retell, signatures, twilio_voice, vapi
from bridge.call_store import CallStore
from bridge.memory import BridgeMemory
from bridge.model_client import ModelClient
from bridge.outcomes import Outcome, record, render_metrics
from bridge.reported_calls import ReportedCalls
from bridge.settings import BridgeSettings

log = logging.getLogger("bridge")

# The platforms that report a call after its end. With Twilio, the bridge is the agent.
_BLUEPRINTS = {"vapi": vapi.blueprint, "retell": retell.blueprint, "elevenlabs": elevenlabs.blueprint}
_MODEL_PLATFORMS = ("vapi", "elevenlabs")
_OUTCOMES = {
    400: Outcome.INVALID,
    401: Outcome.UNAUTHORIZED,
    403: Outcome.UNAUTHORIZED,
    413: Outcome.TOO_LARGE,
    500: Outcome.ERROR,
}


def create_app(settings: BridgeSettings | None = None) -> Flask:
    """Create the application, by default with the settings from the environment.

    It can be created before gunicorn forks: nothing is started before the first request of each worker. Raises
    `BridgeSettingsError` if the environment is incomplete or invalid.
    """
    settings = settings or BridgeSettings.from_environ()
    if settings.accepts_unsigned:
        log.warning("BRIDGE_UNSIGNED is set: anyone who can reach this server can read the memory of every caller")
    app = Flask("bridge", static_folder=None)
    memory = app.extensions["memory"] = BridgeMemory(settings)
    store = CallStore(settings.state_folder)
    reports = ReportedCalls(settings, memory, store)
    for platform in settings.platforms:
        if platform == "twilio":
            app.register_blueprint(twilio_voice.blueprint(settings, memory, store))
        else:
            app.register_blueprint(_BLUEPRINTS[platform](settings, memory, reports))
    if settings.model is not None:
        model = app.extensions["model"] = ModelClient(settings.model)
        for platform in set(_MODEL_PLATFORMS).intersection(settings.platforms):
            app.register_blueprint(completions.blueprint(platform, settings, model, memory, store))

    @app.get("/healthz")
    def health() -> ResponseReturnValue:
        return jsonify(status="ok")

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not settings.accepts_unsigned and not signatures.matches_secret(token, settings.metrics_token):
            abort(404)
        return Response(render_metrics(), mimetype="text/plain")

    @app.errorhandler(HTTPException)
    def render_error(error: HTTPException) -> ResponseReturnValue:
        outcome = _OUTCOMES.get(error.code or 500)
        if request.blueprint is not None and outcome is not None:
            record(request.blueprint.partition("-")[0], outcome, detail=request.path.replace("/", "."))
        return jsonify(error=error.name), error.code or 500

    return app
