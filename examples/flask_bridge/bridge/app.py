"""The application: the webhooks of the enabled platforms, with one memory."""

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
# The report of a one-hour call has a few hundred kB.
_MAX_BODY_BYTES = 2 * 1024 * 1024


def create_app(settings: BridgeSettings | None = None) -> Flask:
    """Create the application, by default with the settings from the environment.

    It can be created before gunicorn forks: nothing is started before the first request of each worker. Raises
    `BridgeSettingsError` if the environment is incomplete or invalid.
    """
    settings = settings or BridgeSettings.from_environ()
    if settings.accepts_unsigned:
        log.warning("BRIDGE_UNSIGNED is set: anyone who can reach this server can read the memory of every caller")
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
