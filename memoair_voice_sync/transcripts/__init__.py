"""Readers of transcripts: they turn files of any size into a stream of turns.

    for item in read_transcript(stream, "calls.jsonl"):
        ...  # a `TranscriptTurn`, or a `Rejection` that says which line is invalid, and why

Formats: ``jsonl`` (one turn or one message per line), ``text`` (``Speaker: text``), ``webvtt``, ``srt``, and the
exports of ``twilio``, ``vapi`` and ``retell``. Files are read as streams; an invalid line costs only that line.
"""

import warnings
from typing import TYPE_CHECKING

from memoair_voice_sync.transcripts._formats import FORMATS, TranscriptFormat, format_of, read_transcript
from memoair_voice_sync.transcripts._moments import parse_moment
from memoair_voice_sync.transcripts._records import Rejection, TranscriptOptions, TranscriptTurn

__all__ = [
    "FORMATS",
    "Rejection",
    "TranscriptFormat",
    "TranscriptOptions",
    "TranscriptTurn",
    "format_of",
    "parse_moment",
    "read_transcript",
]

if not TYPE_CHECKING:  # otherwise type checkers would accept any name of this module

    def __getattr__(name: str) -> object:
        if name == "Refusal":
            module = "memoair_voice_sync.transcripts"
            message = f"{module}.Refusal is now Rejection; the old name will be removed in the next release"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return Rejection
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
