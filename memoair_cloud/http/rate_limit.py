"""How often one key may ask, told by a bucket that fills up again."""

import threading
import time
from collections import OrderedDict

import attrs

from memoair_cloud.errors import RateLimitedError

# A bucket that is not asked for is full again soon, and then the same as none.
_MAX_BUCKETS = 10_000


@attrs.define
class _Bucket:
    tokens: float
    refilled_at: float


class RateLimit:
    """A limit for each key of one server process: ``per_s`` lasting, ``at_once`` in one go. Safe from any thread.

    It stops loops gone wild, and so it need not be exact over several processes, which would cost a write a request.
    """

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def acquire(self, key_id: str, now: float | None = None) -> None:
        """Let one request of a key in, or raise `RateLimitedError`. ``now`` is in monotonic seconds."""
        now = time.monotonic() if now is None else now
        with self._lock:
            bucket = self._buckets.setdefault(key_id, _Bucket(self._burst, now))
            self._buckets.move_to_end(key_id)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.refilled_at) * self._rate_per_s)
            bucket.refilled_at = now
            if bucket.tokens >= 1:
                bucket.tokens -= 1
                return
            wait_s = (1 - bucket.tokens) / self._rate_per_s
        raise RateLimitedError("this key asks too often", retryAfterS=round(wait_s, 3))
