"""What all readers of formatted files produce: a text in Markdown, and a title."""

import re

from attrs import frozen

# Characters that would begin a heading or a fence in Markdown.
_MARKS = re.compile(r"^(#{1,6}(?=\s|$)|`{3}|~{3}|=+$|-+$)", re.MULTILINE)


@frozen
class TitledText:
    """The text of a file.

    Attributes:
        title: The title that its metadata names; empty without one.
        text: Its text in Markdown.
    """

    title: str
    text: str


def escape_marks(text: str) -> str:
    """Return a text in which no line is a heading or a fence in Markdown."""
    return _MARKS.sub(r"\\\1", text)
