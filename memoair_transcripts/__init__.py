"""Readers of transcripts: they turn files of any size into a stream of turns.

    for item in read_transcript(stream, "calls.jsonl"):
        ...  # a `TranscriptTurn`, or a `Rejection` that says which line is invalid, and why

Formats: ``jsonl`` (one turn or one message per line), ``text`` (``Speaker: text``), ``webvtt``, ``srt``, the calls of
``vapi``, ``retell`` and ``elevenlabs``, and what the recognizers of ``twilio``, ``deepgram``, ``assemblyai`` and
``rev`` return. Files are read as streams; an invalid line costs only that line.
"""

from memoair_protocol.timestamps import parse_timestamp
from memoair_transcripts._formats import FORMATS, TranscriptFormat, format_of, read_transcript
from memoair_transcripts._records import Rejection, SkippedItem, TranscriptOptions, TranscriptTexts, TranscriptTurn

__all__ = [
    "FORMATS",
    "Rejection",
    "SkippedItem",
    "TranscriptFormat",
    "TranscriptOptions",
    "TranscriptTexts",
    "TranscriptTurn",
    "format_of",
    "parse_timestamp",
    "read_transcript",
]
