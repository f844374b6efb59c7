"""Slow down clients that try API keys, without a query for each and without shutting out their neighbors."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from memoair_cloud.errors import InvalidKeyError, RateLimitedError
from memoair_cloud.http.rate_limit import RateLimit
from memoair_cloud.tenancy.access import hash_key, list_key_hashes

# For how long a key that was wrong stays so without a query, and how many such keys are remembered.
_WRONG_S = 60.0
_MAX_WRONG = 10_000
# How old the list of valid keys may be, and how many of the keys are in it: those that were used last.
_VALID_S = 5.0
_MAX_VALID = 100_000
# This many characters of a hash identify a key in the list.
_SHORT = 16


class KeyThrottle:
    """Limits the wrong keys of each address within one server process. Thread-safe, with bounded memory.

    Valid keys do not count. They are admitted also from an address whose limit is reached, which many clients may
    share: the list of valid keys is then read, every few seconds at most.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._wrong_until: OrderedDict[str, float] = OrderedDict()
        self._valid_lock = threading.Lock()
        self._valid: frozenset[str] = frozenset()
        self._valid_until = 0.0

    @contextmanager
    def guarding(self, key: str, address: str, limit: RateLimit) -> Iterator[None]:
        """Count the key as wrong if the block, which looks it up, raises `InvalidKeyError`.

        Args:
            key: The key as the client sent it.
            address: The address of the client.
            limit: How many wrong keys an address may send.

        Raises:
            InvalidKeyError: If the key was wrong a moment ago.
            RateLimitedError: If the address has sent too many wrong keys, and this one is unknown.
        """
        key_hash = hash_key(key)
        if self._is_known_wrong(key_hash):
            _count(limit, address)
            raise InvalidKeyError("unknown or revoked API key")
        wait_s = limit.wait_s(address)
        if wait_s > 0 and not self._is_valid(key_hash):
            raise _too_many(wait_s)
        try:
            yield
        except InvalidKeyError:
            self._remember_wrong(key_hash)
            _count(limit, address)
            raise

    def _is_known_wrong(self, key_hash: str) -> bool:
        with self._lock:
            return self._wrong_until.get(key_hash, 0.0) > time.monotonic()

    def _remember_wrong(self, key_hash: str) -> None:
        with self._lock:
            self._wrong_until[key_hash] = time.monotonic() + _WRONG_S
            self._wrong_until.move_to_end(key_hash)
            if len(self._wrong_until) > _MAX_WRONG:
                self._wrong_until.popitem(last=False)

    def _is_valid(self, key_hash: str) -> bool:
        with self._valid_lock:
            if time.monotonic() >= self._valid_until:
                self._valid_until = time.monotonic() + _VALID_S  # also if the database does not answer
                self._valid = frozenset(each[:_SHORT] for each in list_key_hashes(self._engine, _MAX_VALID))
            return key_hash[:_SHORT] in self._valid


def _count(limit: RateLimit, address: str) -> None:
    try:
        limit.acquire(address)
    except RateLimitedError as error:
        raise _too_many(error.details.get("retryAfterS", 1.0)) from None


def _too_many(wait_s: float) -> RateLimitedError:
    return RateLimitedError("too many wrong API keys from this address", retryAfterS=round(wait_s, 3))
