"""Column types that mean the same on SQLite and on PostgreSQL."""

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: SQLite has no time zones, so they are left out on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database; a moment without a time zone is a defect of ours."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs its time zone")
        utc_value = value.astimezone(timezone.utc)
        return utc_value.replace(tzinfo=None) if dialect.name == "sqlite" else utc_value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any] | None:
        """For SQLite, where moments are text: the same text, not made of its parts, since a batch has a thousand."""
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
    """Anything JSON, kept as text: in ASCII, or, where it came as text, as it came.

    The databases' own types refuse what JSON allows (the character 0, half of a surrogate pair), reorder keys and round
    numbers; a caller's words have to come back as they came.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """To the database."""
        if value is None or isinstance(value, EncodedJson):
            return value
        return json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """From the database."""
        return None if value is None else json.loads(value)
