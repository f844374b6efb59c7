"""Webhooks of four telephony platforms over one memory: ``gunicorn 'bridge:create_app()'``."""

from bridge.app import create_app
from bridge.settings import Settings, SettingsError

__all__ = ["Settings", "SettingsError", "create_app"]
