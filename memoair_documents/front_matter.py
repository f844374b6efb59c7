"""YAML front matter: the metadata at the beginning of a Markdown file."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

_MAX_VALUES = 10_000
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$\n?", re.DOTALL | re.MULTILINE)


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return the metadata of a Markdown text, and the text without it.

    Args:
        text: The text. Without front matter, it is returned as it is; a rule (``---``) at its beginning is no front
            matter, nor is anything that is not a mapping.

    Raises:
        ValueError: If the front matter is invalid YAML; the message has the line.
    """
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    import yaml

    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # The first line of the file is the one before the metadata. An open quote is found after the last line.
        line = min(mark.line, match[1].count("\n") - 1) + 2 if mark is not None else 1
        raise ValueError(f"{line}: invalid YAML front matter: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, RecursionError) as error:  # a date such as 2026-13-40
        raise ValueError(f"1: invalid YAML front matter: {error}") from None
    if metadata is None:
        return {}, text[match.end() :]
    if not isinstance(metadata, dict):
        return {}, text
    budget = iter(range(_MAX_VALUES))
    try:
        return {str(key): _to_json(value, budget) for key, value in metadata.items()}, text[match.end() :]
    except (StopIteration, RecursionError):
        raise ValueError(f"1: invalid YAML front matter: more than {_MAX_VALUES:,} values") from None


def _to_json(value: Any, budget: Iterator[int]) -> Any:
    next(budget)  # ten lines of YAML can refer to each other so often that they are billions of values
    if isinstance(value, dict):
        return {str(key): _to_json(item, budget) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_to_json(item, budget) for item in value]
    if isinstance(value, date):  # datetime is one, too
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
