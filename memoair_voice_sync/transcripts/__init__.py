"""Read transcripts: convert files of any size to a stream of turns.

    for item in read_transcript(stream, "calls.jsonl"):
        ...  # a `TranscriptTurn`, or a `Rejection` that says which line is invalid, and why

Formats: ``jsonl`` (one turn or one message per line), ``text`` (``Speaker: text``), ``webvtt``, ``srt``, and the
exports of ``twilio``, ``vapi`` and ``retell``. Files are read as streams; an invalid line is rejected without affecting
the others.
"""

import warnings
from typing import TYPE_CHECKING

from memoair_voice_sync.transcripts._formats import FORMATS, TranscriptFormat, format_of, read_transcript
from memoair_voice_sync.transcripts._records import Rejection, TranscriptOptions, TranscriptTurn
from memoair_voice_sync.transcripts._timestamps import parse_timestamp

__all__ = [
    "FORMATS",
    "Rejection",
    "TranscriptFormat",
    "TranscriptOptions",
    "TranscriptTurn",
    "format_of",
    "parse_timestamp",
    "read_transcript",
]

_FORMER_NAMES = {"Refusal": "Rejection", "parse_moment": "parse_timestamp"}

if not TYPE_CHECKING:  # otherwise type checkers would accept any name of this module

    def __getattr__(name: str) -> object:
        if name not in _FORMER_NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        new_name = _FORMER_NAMES[name]
        message = f"{__name__}.{name} is now {new_name}; the old name will be removed in the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return globals()[new_name]
