"""The hashes that the cloud and the machines compute alike: each compares its own with what the other sent."""

import hashlib
import json
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20


def hash_content(content: Any) -> str:
    """Return the SHA-256 of a projection's content: JSON values as ASCII, with sorted keys and without spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hash_user_id(project_id: str, user_id: str) -> str:
    """Return the hash that stands for an erased user: it tells nothing to those who do not know the ids."""
    return hashlib.sha256(f"{project_id}\0{user_id}".encode()).hexdigest()


def cloud_id_of(base_url: str) -> str:
    """Return the id of a cloud by its URL, without a trailing slash."""
    return hashlib.sha256(base_url.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
