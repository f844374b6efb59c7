"""The hash of what a device is told, which it compares with what it has received."""

import hashlib
import json
from typing import Any


def hash_content(value: Any) -> str:
    """SHA-256 of something as ASCII JSON with sorted keys and without spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
