"""Log records as one line each: no text from outside begins another line, or colors a terminal."""

import logging
import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def escape_controls(text: str) -> str:
    """Return a text with its control characters and line ends as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class OneLineFormatter(logging.Formatter):
    """Formats a record with a message of one line. The traceback of an exception follows in lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the standard library
        """Return the first line."""
        return escape_controls(super().formatMessage(record))
