"""Rate limiting by API key or address, with token buckets."""

import threading
import time
from collections import OrderedDict

import attrs

from memoair_cloud.errors import RateLimitedError

# An unused bucket is soon full again, and then no different from a new one, so it can be dropped.
_MAX_BUCKETS = 10_000


@attrs.define
class _Bucket:
    tokens: float
    refilled_at: float


class RateLimit:
    """A rate limit per API key within one server process. Thread-safe.

    It stops runaway loops, so it is not exact across processes: that would cost a write per request.

    Args:
        rate_per_s: The sustained rate of a key, in requests per second.
        burst: The number of requests that a key may send at once.
    """

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def acquire(self, key_id: str, now: float | None = None) -> None:
        """Admit one request of a key.

        Args:
            key_id: The id of the API key.
            now: The current time in monotonic seconds; by default the clock.

        Raises:
            RateLimitedError: If the key has no request left.
        """
        now = time.monotonic() if now is None else now
        with self._lock:
            bucket = self._buckets.setdefault(key_id, _Bucket(self._burst, now))
            self._buckets.move_to_end(key_id)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
            wait_s = self._refill(bucket, now)
            if wait_s == 0:
                bucket.tokens -= 1
                return
        raise RateLimitedError("too many requests with this key", retryAfterS=round(wait_s, 3))

    def wait_s(self, key_id: str, now: float | None = None) -> float:
        """Return in how many seconds the next request of a key would be admitted; 0 if it would be now."""
        now = time.monotonic() if now is None else now
        with self._lock:
            bucket = self._buckets.get(key_id)
            return 0.0 if bucket is None else self._refill(bucket, now)

    def _refill(self, bucket: _Bucket, now: float) -> float:
        """Add the tokens since the last time; return the seconds until there is a whole one."""
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.refilled_at) * self._rate_per_s)
        bucket.refilled_at = now
        return max(0.0, (1 - bucket.tokens) / self._rate_per_s)
