"""Readers of transcripts: they turn files of any size into a stream of turns.

    for item in read_transcript(stream, "calls.jsonl"):
        ...  # a `TranscriptTurn`, or a `Rejection` that says which line is invalid, and why

Formats: ``jsonl`` (one turn or one message per line), ``text`` (``Speaker: text``), ``webvtt``, ``srt``, the calls of
``vapi``, ``retell`` and ``elevenlabs``, and what the recognizers of ``twilio``, ``deepgram``, ``assemblyai`` and
``rev`` return. Files are read as streams; an invalid line costs only that line.

`parse_call` and `find_caller` read a single webhook in the same way: what was said, and who was calling.
"""

from memoair_protocol.timestamps import parse_timestamp
from memoair_transcripts._callers import caller_address, find_caller
from memoair_transcripts._export_fields import ExportedCall, ExportedUtterance, NoTranscriptError
from memoair_transcripts._formats import FORMATS, TranscriptFormat, format_of, read_transcript
from memoair_transcripts._platforms import parse_call
from memoair_transcripts._records import (
    Rejection,
    Side,
    SkippedItem,
    TranscriptOptions,
    TranscriptTexts,
    TranscriptTurn,
)

__all__ = [
    "FORMATS",
    "ExportedCall",
    "ExportedUtterance",
    "NoTranscriptError",
    "Rejection",
    "Side",
    "SkippedItem",
    "TranscriptFormat",
    "TranscriptOptions",
    "TranscriptTexts",
    "TranscriptTurn",
    "caller_address",
    "find_caller",
    "format_of",
    "parse_call",
    "parse_timestamp",
    "read_transcript",
]
