"""Identifiers: which may be given from outside, and how our own are made."""

import hashlib
import re
import secrets
import unicodedata

SLUG = r"^[a-z0-9]+(?:[-_][a-z0-9]+)*$"
MAX_SLUG_CHARS = 60
# An identifier is part of keys of several columns, and an index page of PostgreSQL takes 2,700 bytes of them.
MAX_ID_BYTES = 512
MAX_NAME_CHARS = 200
_FORBIDDEN_CHARS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NON_SLUG_CHARS = re.compile(r"[^a-z0-9]+")


def check_identifier(value: str) -> str:
    """The identifier itself, if it can be one: not empty, no control characters, at most 512 bytes; else ValueError.

    Headers lose white space at their ends, and paths their dots, on the way; so two would become one, or none.
    """
    if not value:
        raise ValueError("an identifier must not be empty")
    if value != value.strip() or value in (".", ".."):
        raise ValueError("an identifier must not begin or end with white space, nor be . or ..")
    if _FORBIDDEN_CHARS.search(value):
        raise ValueError("an identifier must not hold control characters")
    if len(value.encode()) > MAX_ID_BYTES:
        raise ValueError(f"an identifier must not be longer than {MAX_ID_BYTES} bytes")
    return value


def sanitize_text(value: str) -> str:
    """A text that every database takes: the character 0 and halves of surrogate pairs become U+FFFD."""
    return re.sub(r"[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", value)


def slugify(name: str) -> str:
    """A name as a slug, accents left out; empty where it has no Latin letter or digit."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return _NON_SLUG_CHARS.sub("-", ascii_name).strip("-")[:MAX_SLUG_CHARS].strip("-")


def random_suffix() -> str:
    """Eight signs that tell two of one name apart."""
    return secrets.token_hex(4)


def new_id(prefix: str) -> str:
    """A fresh id, such as ``acct_...``."""
    return f"{prefix}_{secrets.token_hex(12)}"


def hash_user_id(project_id: str, user_id: str) -> str:
    """What is kept of a caller who was forgotten. Devices compute the same of those whose folders they have."""
    return hashlib.sha256(f"{project_id}\0{user_id}".encode()).hexdigest()


def hash_session_id(project_id: str, user_id: str, session_id: str) -> str:
    """What is kept of a call of a caller who was forgotten."""
    return hashlib.sha256("\0".join((project_id, user_id, session_id)).encode()).hexdigest()
