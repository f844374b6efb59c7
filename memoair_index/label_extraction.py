"""Label extraction: find what a document is about from its title and its metadata."""

import re
from collections.abc import Mapping
from typing import Any

from memoair_index.analysis import STOP_WORDS
from memoair_index.sections import split_sections

# Metadata that says how to read the text, and nothing about its subject.
FORMAT_KEY = "format"
MARKDOWN = "markdown"

# A label is a short title or name. URLs, numbers, file names and whole sentences are not labels: no caller says them
# to name a subject.
_MAX_LABEL_CHARS = 80
_MAX_LABEL_WORDS = 8
_MAX_LABELS = 8
_NOT_A_LABEL = re.compile(r"://|^[\W\d_]*$|\.\w{2,4}$|[.?!]$")


def extract_labels(text: str, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a document is about: the names in its metadata, whatever their keys, and its title.

    Args:
        text: The text of the document; its first line may be a title.
        metadata: The document's metadata; its short strings are names.

    Returns:
        At most 8 labels, without duplicates.
    """
    is_markdown = metadata.get(FORMAT_KEY) == MARKDOWN
    values = [
        value for key, value in metadata.items() if isinstance(value, str) and not (is_markdown and key == FORMAT_KEY)
    ]
    if is_markdown:
        # Its title is in the metadata, or else its first heading. The headings below it are no labels: that was
        # measured, and hits became worse.
        sections = [] if "title" in metadata else split_sections(text)
        title, newline = next((section.headings[0] for section in sections if section.headings), ""), "\n"
    else:
        title, newline, _ = text.partition("\n")
    candidates = [*values, title] if newline and _is_title(title) else values
    return tuple(dict.fromkeys(label.strip() for label in candidates if _is_label(label.strip())))[:_MAX_LABELS]


def _is_title(line: str) -> bool:
    """Return whether a first line names something; a question without its question mark does not."""
    words = line.casefold().split()
    return 3 * sum(word in STOP_WORDS for word in words) <= len(words)


def _is_label(text: str) -> bool:
    return len(text) <= _MAX_LABEL_CHARS and len(text.split()) <= _MAX_LABEL_WORDS and not _NOT_A_LABEL.search(text)
