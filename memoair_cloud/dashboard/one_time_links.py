"""Links that sign someone in once, for a server that the same person has just started: `memoair cloud demo`."""

import hashlib
import math
import secrets
import threading
import time
from collections.abc import Callable

import attrs

LINK_PATH = "/dashboard/link"
LINK_TTL_S = 600.0
_TOKEN_BYTES = 32


@attrs.frozen
class LinkTarget:
    """What a link is good for.

    Attributes:
        key: The API key that it signs in with.
        path: The page that it leads to.
    """

    key: str = attrs.field(repr=False)
    path: str


class OneTimeLinks:
    """The links of one server process that were not used yet. Thread-safe.

    They are in memory only, so they end with the process and no other one honors them.

    Args:
        clock: Returns the current time in seconds; it never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By the hash of the token: when the link ends, and its target.
        self._targets: dict[str, tuple[float, LinkTarget]] = {}

    def issue(self, key: str, path: str) -> str:
        """Return the path of a new link, which is valid for ten minutes and for one use.

        Args:
            key: The API key that it signs in with.
            path: The page that it leads to.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        with self._lock:
            self._targets[_hash_token(token)] = (self._clock() + LINK_TTL_S, LinkTarget(key, path))
        return f"{LINK_PATH}/{token}"

    def redeem(self, token: str) -> LinkTarget | None:
        """Return the target of a link and end the link; None if it is unknown, was used before, or is too old."""
        with self._lock:
            expires_at, target = self._targets.pop(_hash_token(token), (-math.inf, None))
        return target if self._clock() < expires_at else None


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
