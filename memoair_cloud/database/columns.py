"""Column types that behave the same on SQLite and PostgreSQL."""

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A timestamp in UTC. SQLite has no time zones, so the zone is removed on writing and added back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a value for the database. A timestamp without a time zone is a programming error."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a timestamp requires a time zone")
        utc_value = value.astimezone(timezone.utc)
        return utc_value.replace(tzinfo=None) if dialect.name == "sqlite" else utc_value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert a value from the database."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any] | None:
        """Return a faster converter for SQLite, which stores timestamps as text.

        The text is the same as SQLAlchemy's, but it is not assembled from the parts: a batch may have a thousand of
        them.
        """
        if dialect.name != "sqlite":
            return super().bind_processor(dialect)

        def process(value: datetime | None) -> str | None:
            bound = self.process_bind_param(value, dialect)
            return None if bound is None else bound.isoformat(" ", "microseconds")

        return process


class EncodedJson(str):
    """A text that is JSON already."""

    __slots__ = ()


class Json(TypeDecorator[Any]):
    """Any JSON value, stored as text: as ASCII, or unchanged if it was given as text.

    The databases' own JSON types reject what JSON allows (NUL, lone surrogates), reorder keys and round numbers. A
    caller's words must come back exactly as they were sent.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Convert a value for the database."""
        if value is None or isinstance(value, EncodedJson):
            return value
        return json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Convert a value from the database."""
        return None if value is None else json.loads(value)
