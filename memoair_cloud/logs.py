"""Structured logs: one JSON object per line, without callers' words and without API keys."""

import json
import logging
import sys
import traceback
from datetime import datetime, timezone


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON.

    Exceptions are logged with their type and traceback, but without their message, which may quote a caller.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry = {
            "at": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "action": getattr(record, "action", None),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            entry["error"] = record.exc_info[0].__name__
            entry["places"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps({name: value for name, value in entry.items() if value is not None})


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send all log records of this process to stderr as JSON lines.

    Args:
        level: The minimum level of the records.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("huey").setLevel(logging.WARNING)
