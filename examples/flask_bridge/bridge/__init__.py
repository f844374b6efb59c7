"""Webhooks of four telephone platforms with one memory. Run it with ``gunicorn 'bridge:create_app()'``."""

from bridge.app import create_app
from bridge.settings import BridgeSettings, BridgeSettingsError

__all__ = ["BridgeSettings", "BridgeSettingsError", "create_app"]
