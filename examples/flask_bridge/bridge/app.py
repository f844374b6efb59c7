"""The application: the platforms that are wanted, over one memory."""

import logging

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from bridge import elevenlabs, retell, twilio_voice, vapi
from bridge.memory import BridgeMemory
from bridge.settings import BridgeSettings

log = logging.getLogger("bridge")

_BLUEPRINTS = {
    "twilio": twilio_voice.blueprint,
    "vapi": vapi.blueprint,
    "retell": retell.blueprint,
    "elevenlabs": elevenlabs.blueprint,
}
# The report of an hour's call has some hundred kB.
_MAX_BODY_BYTES = 2 * 1024 * 1024


def create_app(settings: BridgeSettings | None = None) -> Flask:
    """The application, by default as the environment says; raises `SettingsError` where that does not fit.

    It may be made before gunicorn forks: it starts nothing until the first request of each worker.
    """
    settings = settings or BridgeSettings.from_environ()
    if settings.accepts_unsigned:
        log.warning("BRIDGE_UNSIGNED is set: whoever finds this server reads every caller's memory")
    app = Flask("bridge", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY_BYTES
    memory = app.extensions["memory"] = BridgeMemory(settings)
    for platform in settings.platforms:
        app.register_blueprint(_BLUEPRINTS[platform](settings, memory))

    @app.get("/healthz")
    def health() -> ResponseReturnValue:
        return jsonify(status="ok")

    @app.errorhandler(HTTPException)
    def render_error(error: HTTPException) -> ResponseReturnValue:
        return jsonify(error=error.name), error.code or 500

    return app
