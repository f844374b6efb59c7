"""Back-off: how long to wait after each failure in a row before the next attempt."""

import random
from typing import NamedTuple


class Backoff(NamedTuple):
    """Pauses that double with each failure in a row, up to a limit.

    Attributes:
        first_s: The longest pause after the first failure, in seconds.
        max_s: The longest pause after any number of failures.
        jitter: The share of a pause that is random, so that clients do not retry in step: 0 for none, 1 for a pause
            anywhere between nothing and all of it.
    """

    first_s: float
    max_s: float
    jitter: float = 1.0

    def pause_s(self, failures: int, *, retry_after_s: float = 0.0, draw: float | None = None) -> float:
        """Return how long to wait before the next attempt, in seconds.

        Args:
            failures: The number of failures in a row, at least 1.
            retry_after_s: The pause that the server asked for. The result is never shorter.
            draw: Where in its range the pause lies, from 0 to 1; random by default.
        """
        draw = random.random() if draw is None else draw
        doublings = min(failures - 1, 64)  # the limit is reached long before, and a float holds it
        pause_s = min(self.max_s, self.first_s * 2**doublings)
        return float(retry_after_s + pause_s * (1 - self.jitter + self.jitter * draw))
