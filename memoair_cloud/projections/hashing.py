"""The content hash of a projection, which a machine compares with what it received."""

import hashlib
import json
from typing import Any


def hash_content(value: Any) -> str:
    """Return the SHA-256 of a value as ASCII JSON with sorted keys and without spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
