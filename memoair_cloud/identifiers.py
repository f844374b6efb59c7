"""Identifiers: which ones are accepted from clients, and how the server generates its own."""

import hashlib
import re
import secrets
import unicodedata

from memoair_protocol.identifiers import identifier_problem

SLUG = r"^[a-z0-9]+(?:[-_][a-z0-9]+)*$"
MAX_SLUG_CHARS = 60
MAX_NAME_CHARS = 200
_NON_SLUG_CHARS = re.compile(r"[^a-z0-9]+")


def check_identifier(value: str) -> str:
    """Return the identifier unchanged if it is valid, see `identifier_problem`.

    Raises:
        ValueError: If the identifier is invalid. The message does not contain it.
    """
    if problem := identifier_problem(value):
        raise ValueError(f"the identifier {problem}")
    return value


def sanitize_text(value: str) -> str:
    """Replace NUL and lone surrogates, which some databases reject, with U+FFFD."""
    return re.sub(r"[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", value)


def slugify(name: str) -> str:
    """Return a name as a slug without accents; empty if it has no Latin letter or digit."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return _NON_SLUG_CHARS.sub("-", ascii_name).strip("-")[:MAX_SLUG_CHARS].strip("-")


def random_suffix() -> str:
    """Return eight random hexadecimal digits, to distinguish things of the same name."""
    return secrets.token_hex(4)


def new_id(prefix: str) -> str:
    """Return a new id such as ``acct_...``."""
    return f"{prefix}_{secrets.token_hex(12)}"


def hash_session_id(project_id: str, user_id: str, session_id: str) -> str:
    """Return the hash that is kept of a session of an erased user."""
    return hashlib.sha256("\0".join((project_id, user_id, session_id)).encode()).hexdigest()
