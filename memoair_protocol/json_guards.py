"""Guards for JSON from outside: its depth, and error messages that quote none of its values."""

import re
from collections.abc import Mapping

# An unterminated string matches to the end of the text. Otherwise every character in it would be scanned once for each
# character before it.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def is_deeper_than(max_depth: int, content: bytes) -> bool:
    """Return whether the brackets of a JSON text are nested deeper, not counting brackets in strings."""
    if content.count(b"[") + content.count(b"{") <= max_depth:  # the usual case, at the speed of memory
        return False
    depth = 0
    for token in _STRING_OR_BRACKET.findall(content):
        if token in b"[{":
            depth += 1
            if depth > max_depth:
                return True
        elif token in b"]}":
            depth -= 1
    return False


def strip_values(message: str, enums: Mapping[str, str]) -> str:
    """Return msgspec's message without the values that it quotes; types, limits and paths stay.

    Args:
        message: The message of a ``msgspec.ValidationError``.
        enums: What is allowed instead of an invalid value of an enumeration, by the end of the path to it; ``""`` is
            for any path.
    """
    description, separator, path = message.rpartition(" - at ")
    if not separator:
        description, path = path, ""
    if description.startswith("Object contains unknown field"):
        description = "Object contains unknown field"
    elif description.startswith("Invalid enum value"):
        allowed = next((names for end, names in enums.items() if path.rstrip("`").endswith(end)), "")
        description = f"Expected one of {allowed}"
    return f"{description}{separator}{path}"
