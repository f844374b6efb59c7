"""When data is too old to be kept. The cloud and the machines count alike."""

from datetime import datetime, timedelta

MAX_RETENTION_DAYS = 36_500


def find_cutoff(now: datetime, days: int | None) -> datetime | None:
    """Return the time before which data is dropped, a full hour; None if it is kept for ever.

    Hours, and not moments: otherwise every caller's data would be looked through again for each turn.

    Args:
        now: The present time.
        days: For how many days data is kept; None for ever.
    """
    return None if days is None else now.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
