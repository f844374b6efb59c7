"""What a document is about: its title, and the names in its metadata."""

import re
from collections.abc import Mapping
from typing import Any

from memoair_index.analysis import STOP_WORDS

# A label is a title or a name, no text of its own; an address or a number names nothing that is said aloud.
_MAX_LABEL_CHARS = 80
_MAX_LABEL_WORDS = 8
_MAX_LABELS = 8
_NOT_A_LABEL = re.compile(r"://|^[\W\d_]*$|\.\w{2,4}$|[.?!]$")


def extract_labels(text: str, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What a document is about: the names in its metadata, whatever their fields are called, and its title."""
    values = [value for value in metadata.values() if isinstance(value, str)]
    title, newline, _ = text.partition("\n")
    candidates = [*values, title] if newline and _is_title(title) else values
    return tuple(dict.fromkeys(each.strip() for each in candidates if _is_label(each.strip())))[:_MAX_LABELS]


def _is_title(line: str) -> bool:
    """Whether a first line names something; a question that was written without its mark does not."""
    words = line.casefold().split()
    return 3 * sum(word in STOP_WORDS for word in words) <= len(words)


def _is_label(text: str) -> bool:
    return len(text) <= _MAX_LABEL_CHARS and len(text.split()) <= _MAX_LABEL_WORDS and not _NOT_A_LABEL.search(text)
