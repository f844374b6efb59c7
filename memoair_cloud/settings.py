"""What a server is told: by flags first, then by variables ``MEMOAIR_CLOUD_*``, then these defaults."""

from pathlib import Path
from typing import Any

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def _default_folder() -> Path:
    return Path(platformdirs.user_data_dir("memoair", appauthor=False)) / "cloud"


class CloudSettings(BaseSettings):
    """One server's settings; checked once, here."""

    model_config = SettingsConfigDict(env_prefix="MEMOAIR_CLOUD_", frozen=True, extra="forbid", populate_by_name=True)

    database_url: str = Field(
        default_factory=lambda: f"sqlite:///{_default_folder() / 'cloud.db'}",
        description="SQLite or PostgreSQL, as SQLAlchemy writes it",
    )
    blob_url: str = Field(
        default_factory=lambda: (_default_folder() / "blobs").as_uri(),
        description="where index files are kept: a folder, or any URL that fsspec can reach",
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    # All runtimes of all callers of an account may share one key, and each asks every few seconds. What this stops is
    # a loop gone wild.
    requests_per_s: float = Field(
        default=200.0, gt=0, description="what one key may ask of one server process, lasting"
    )
    requests_at_once: int = Field(default=400, gt=0, description="what one key may ask in one go")

    session_idle_s: float = Field(
        default=600.0,
        gt=0,
        validation_alias=AliasChoices("MEMOAIR_SESSION_IDLE_S", "MEMOAIR_CLOUD_SESSION_IDLE_S"),
        description="a call in which nothing has come for so long is taken to be over",
    )
    worker_threads: int = Field(default=2, ge=1, le=64, description="how much a worker does at once")
    chat_base_url: str | None = Field(
        default=None,
        description="a chat endpoint of OpenAI's protocol, which finds the facts instead of rules",
    )
    chat_model: str | None = None
    chat_api_key: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _require_both_chat_settings(self) -> "CloudSettings":
        if (self.chat_base_url is None) != (self.chat_model is None):
            raise ValueError("chat_base_url and chat_model belong together")
        return self

    @field_validator("database_url")
    @classmethod
    def _select_driver(cls, url: str) -> str:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ValueError("not a database URL") from None
        backend = parsed.get_backend_name()
        if backend in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif backend != "sqlite":
            raise ValueError("the database can be SQLite or PostgreSQL")
        elif parsed.database in (None, "", ":memory:"):
            raise ValueError("SQLite needs a file: sqlite:////a/path/cloud.db")
        return parsed.render_as_string(hide_password=False)


def load_settings(**flags: Any) -> CloudSettings:
    """Settings in which flags that were given (not None) come before the environment."""
    return CloudSettings(**{name: value for name, value in flags.items() if value is not None})
