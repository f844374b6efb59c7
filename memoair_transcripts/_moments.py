"""Parse the times in transcripts that count from the start of a call."""

import re
from datetime import timedelta

from memoair_protocol.moments import parse_fraction

_CLOCK = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d\d)(?:[.,](\d{1,9}))?", re.ASCII)


def parse_clock(text: str) -> timedelta | None:
    """Parse ``MM:SS`` or ``HH:MM:SS``, with or without a fraction. Return None for anything else."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=parse_fraction(match[4]))
