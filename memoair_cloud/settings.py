"""Settings of a server: from command-line flags, then ``MEMOAIR_CLOUD_*`` variables, then defaults."""

from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from memoair_cloud.memories.speaker_time import SpeakerTime, find_zone
from memoair_cloud.tenancy.grants import KeyScope


def _default_folder() -> Path:
    return Path(platformdirs.user_data_dir("memoair", appauthor=False)) / "cloud"


def _parse_networks(addresses: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part.strip()) for part in addresses.split(",") if part.strip())


class CloudSettings(BaseSettings):
    """The validated settings of one server or worker.

    Attributes:
        database_url: SQLite or PostgreSQL, as a SQLAlchemy URL.
        blob_url: Where index files are stored: a folder, or any URL that fsspec supports.
        host: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        requests_per_s: The sustained rate of one API key in one server process, in requests per second.
        requests_at_once: The burst of one API key in one server process, in requests.
        wrong_keys_at_once: Wrong API keys from one address at once; one more is allowed every second. Valid keys from
            there are admitted in any case.
        session_idle_s: Seconds without a new event after which a call counts as ended.
        database_wait_s: Seconds to wait at the start for a database that does not respond yet.
        body_timeout_s: Seconds to wait for the next part of a request's body.
        metrics_token: A bearer token that may read ``/metrics``, from any address.
        metrics_addresses: The addresses or networks that may read ``/metrics`` without the token, separated by commas.
        worker_threads: The number of tasks that a worker runs concurrently.
        upload_file_bytes: The largest file of an upload, in bytes.
        upload_request_bytes: The largest request with files of an upload, in bytes. Needs as much space for temporary
            files.
        upload_total_bytes: All files of an upload together, in bytes.
        time_zone: The time zone in which callers count days, where neither the time of a turn nor its call says one.
        project_time_zones: The same for single projects, by id.
        dashboard: Whether to serve the dashboard.
        dashboard_idle_s: Seconds without a request after which a person is signed out.
        dashboard_session_s: Seconds after which a person is signed out in any case.
        dashboard_sign_ins_at_once: Attempts to sign in from one address at once with a wrong key; one more is
            allowed every 5 seconds.
        dashboard_proxy_header: The header in which a proxy that has authenticated a person sends their name. Trusted
            only from ``dashboard_proxy_addresses``.
        dashboard_proxy_addresses: The addresses or networks of trusted proxies, separated by commas. Only theirs
            count, and of the ``X-Forwarded-*`` headers as well.
        dashboard_proxy_account: The account that people behind the proxy access, as its id.
        dashboard_proxy_scope: What they may do: ``everything`` or ``read``.
        chat_base_url: An OpenAI-compatible chat endpoint that extracts facts instead of the rules. Needs
            ``chat_model``.
        chat_model: The model to ask there.
        chat_api_key: The API key for it.
        chat_window_chars: The maximum size of the turns in one request, in characters; longer calls take several.
        chat_prompt_price: The price of a million tokens that are sent, in any currency.
        chat_completion_price: The price of a million tokens that the model writes.
        chat_cached_price: The price of a million tokens that the endpoint had cached; as ``chat_prompt_price`` if None.
        chat_daily_tokens: The maximum number of tokens of a project on a day (UTC); the rules read what comes after.
        judge_base_url: An OpenAI-compatible chat endpoint that answers the cases of evaluations and grades the answers,
            if a run asks for it. Needs ``judge_model``.
        judge_model: The model to ask there.
        judge_api_key: The API key for it.
        judge_prompt_price: The price of a million tokens that are sent, in any currency.
        judge_completion_price: The price of a million tokens that the model writes.
        judge_cached_price: The price of a million tokens that the endpoint had cached; as ``judge_prompt_price`` if
            None.
    """

    model_config = SettingsConfigDict(env_prefix="MEMOAIR_CLOUD_", frozen=True, extra="forbid", populate_by_name=True)

    database_url: str = Field(
        default_factory=lambda: f"sqlite:///{_default_folder() / 'cloud.db'}",
        description="SQLite or PostgreSQL, as a SQLAlchemy URL",
    )
    blob_url: str = Field(
        default_factory=lambda: (_default_folder() / "blobs").as_uri(),
        description="where index files are stored: a folder, or any URL that fsspec supports",
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    # All runtimes of all users of an account may share one key, and each sends a request every few seconds. The limit
    # stops runaway loops.
    requests_per_s: float = Field(
        default=200.0, gt=0, description="sustained requests per second of one key to one server process"
    )
    requests_at_once: int = Field(default=400, gt=0, description="burst of requests of one key to one server process")
    wrong_keys_at_once: int = Field(
        default=30, gt=0, description="wrong API keys from one address at once; one more every second"
    )

    session_idle_s: float = Field(
        default=600.0,
        gt=0,
        validation_alias=AliasChoices("MEMOAIR_SESSION_IDLE_S", "MEMOAIR_CLOUD_SESSION_IDLE_S"),
        description="seconds without a new event after which a call counts as ended",
    )
    database_wait_s: float = Field(
        default=60.0, ge=0, description="seconds to wait at the start for a database that does not respond yet"
    )
    body_timeout_s: float = Field(
        default=30.0, gt=0, description="seconds to wait for the next part of a request's body"
    )
    metrics_token: SecretStr = Field(default=SecretStr(""), description="bearer token that may read /metrics")
    metrics_addresses: str = Field(
        default="127.0.0.0/8,::1",
        description="addresses or networks that may read /metrics without the token, separated by commas",
    )
    worker_threads: int = Field(default=2, ge=1, le=64, description="number of tasks that a worker runs concurrently")
    upload_file_bytes: int = Field(default=64 << 20, gt=0, description="largest file of an upload, in bytes")
    upload_request_bytes: int = Field(default=256 << 20, gt=0, description="largest request with files, in bytes")
    upload_total_bytes: int = Field(default=2 << 30, gt=0, description="all files of an upload together, in bytes")
    time_zone: str = Field(
        default="UTC", description="time zone in which callers count days, as a name such as Europe/Berlin"
    )
    project_time_zones: dict[str, str] = Field(
        default_factory=dict, description='time zones of single projects, as JSON: {"proj_shop": "Asia/Tokyo"}'
    )
    dashboard: bool = Field(default=True, description="serve the dashboard at /dashboard")
    dashboard_idle_s: float = Field(default=3_600.0, gt=0, description="seconds without a request until signed out")
    dashboard_session_s: float = Field(default=43_200.0, gt=0, description="seconds until signed out in any case")
    dashboard_sign_ins_at_once: int = Field(
        default=10, gt=0, description="wrong keys to sign in from one address at once; one more every 5 seconds"
    )
    dashboard_proxy_header: str | None = Field(
        default=None, description="header with the name of a person that a trusted proxy has authenticated"
    )
    dashboard_proxy_addresses: str = Field(
        default="", description="addresses or networks of trusted proxies, separated by commas"
    )
    dashboard_proxy_account: str | None = Field(
        default=None, description="id of the account that people behind the proxy access"
    )
    dashboard_proxy_scope: KeyScope = Field(
        default=KeyScope.EVERYTHING, description="what people behind the proxy may do: everything or read"
    )
    chat_base_url: str | None = Field(
        default=None,
        description="an OpenAI-compatible chat endpoint that extracts facts instead of the rules",
    )
    chat_model: str | None = None
    chat_api_key: SecretStr = SecretStr("")
    chat_window_chars: int = Field(
        default=24_000, ge=1_000, le=10_000_000, description="size of the turns in one request to the model"
    )
    chat_prompt_price: float | None = Field(default=None, ge=0, description="price of a million tokens that are sent")
    chat_completion_price: float | None = Field(default=None, ge=0, description="of a million that the model writes")
    chat_cached_price: float | None = Field(default=None, ge=0, description="of a million that are sent and cached")
    chat_daily_tokens: int | None = Field(
        default=None, ge=0, description="tokens of a project on a day (UTC); the rules read what comes after"
    )

    judge_base_url: str | None = Field(
        default=None, description="an OpenAI-compatible chat endpoint that judges the answers of evaluations"
    )
    judge_model: str | None = None
    judge_api_key: SecretStr = SecretStr("")
    judge_prompt_price: float | None = Field(default=None, ge=0, description="price of a million tokens that are sent")
    judge_completion_price: float | None = Field(default=None, ge=0, description="of a million that the judge writes")
    judge_cached_price: float | None = Field(default=None, ge=0, description="of a million that are sent and cached")

    @model_validator(mode="after")
    def _require_both_chat_settings(self) -> "CloudSettings":
        if (self.chat_base_url is None) != (self.chat_model is None):
            raise ValueError("chat_base_url and chat_model must be set together")
        return self

    @model_validator(mode="after")
    def _require_both_chat_prices(self) -> "CloudSettings":
        if (self.chat_prompt_price is None) != (self.chat_completion_price is None):
            raise ValueError("chat_prompt_price and chat_completion_price must be set together")
        if self.chat_prompt_price is None and self.chat_cached_price is not None:
            raise ValueError("chat_cached_price requires chat_prompt_price")
        return self

    @model_validator(mode="after")
    def _require_all_judge_settings(self) -> "CloudSettings":
        if (self.judge_base_url is None) != (self.judge_model is None):
            raise ValueError("judge_base_url and judge_model must be set together")
        if (self.judge_prompt_price is None) != (self.judge_completion_price is None):
            raise ValueError("judge_prompt_price and judge_completion_price must be set together")
        if self.judge_prompt_price is None and self.judge_cached_price is not None:
            raise ValueError("judge_cached_price requires judge_prompt_price")
        return self

    @model_validator(mode="after")
    def _require_all_proxy_settings(self) -> "CloudSettings":
        if self.dashboard_proxy_header is None:
            return self
        if not self.trusted_proxies or self.dashboard_proxy_account is None:
            raise ValueError(
                "dashboard_proxy_header requires dashboard_proxy_addresses and dashboard_proxy_account: without them, "
                "anyone could send the header"
            )
        return self

    @cached_property
    def trusted_proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of trusted proxies."""
        return _parse_networks(self.dashboard_proxy_addresses)

    @cached_property
    def metrics_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks that may read the metrics without a token."""
        return _parse_networks(self.metrics_addresses)

    @field_validator("dashboard_proxy_addresses", "metrics_addresses")
    @classmethod
    def _require_valid_networks(cls, value: str) -> str:
        for part in filter(None, map(str.strip, value.split(","))):
            try:
                ip_network(part)
            except ValueError:
                raise ValueError("use addresses or networks such as 10.0.0.0/8, separated by commas") from None
        return value

    @model_validator(mode="after")
    def _require_known_time_zones(self) -> "CloudSettings":
        for name in (self.time_zone, *self.project_time_zones.values()):
            find_zone(name)
        return self

    def make_speaker_time(self) -> SpeakerTime:
        """Return the time zones of the server and its projects."""
        zones = {project: find_zone(name) for project, name in self.project_time_zones.items()}
        return SpeakerTime(find_zone(self.time_zone), zones)

    @field_validator("database_url")
    @classmethod
    def _select_driver(cls, url: str) -> str:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ValueError("invalid database URL: expected SQLite or PostgreSQL, as a SQLAlchemy URL") from None
        backend = parsed.get_backend_name()
        if backend in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif backend != "sqlite":
            raise ValueError("unsupported database: use SQLite or PostgreSQL")
        elif parsed.database in (None, "", ":memory:"):
            raise ValueError("SQLite requires a file: sqlite:////a/path/cloud.db")
        return parsed.render_as_string(hide_password=False)


class IsolatedSettings(CloudSettings):
    """Settings that ignore the environment: what it says of another server must not lead this one there."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature of pydantic
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the only source: the arguments."""
        return (init_settings,)


def load_settings(**flags: Any) -> CloudSettings:
    """Return the settings, where flags that are not None override the environment.

    Args:
        **flags: Fields of `CloudSettings`.

    Raises:
        pydantic.ValidationError: If a setting is invalid.
    """
    return CloudSettings(**{name: value for name, value in flags.items() if value is not None})
