"""The hash of what a device is told, which it compares with what it has received."""

import hashlib
import json
from typing import Any


def content_hash(told: Any) -> str:
    """SHA-256 of something as ASCII JSON with sorted keys and without spaces."""
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
