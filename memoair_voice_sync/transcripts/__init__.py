"""Readers of transcripts: from files to turns, one after another, however large the files are.

    for item in read_transcript(stream, "calls.jsonl"):
        ...  # a `TranscriptTurn`, or a `Rejection` that says which line is not one, and why

Formats: ``jsonl`` (a turn or a message a line), ``text`` (``Speaker: text``), ``webvtt`` and ``srt``, and what
``twilio``, ``vapi`` and ``retell`` export. A file is read as a stream; what is wrong with a line costs that line only.
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

if not TYPE_CHECKING:  # a type checker would take every name for one of this module

    def __getattr__(name: str) -> object:
        if name == "Refusal":
            message = "memoair_voice_sync.transcripts.Refusal is now Rejection; the old name goes in the next release"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return Rejection
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
