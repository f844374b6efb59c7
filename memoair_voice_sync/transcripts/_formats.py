"""The formats by name, and the one way through all of them."""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO, Protocol

import attrs

from memoair_voice_sync.transcripts._call_exports import read_retell, read_twilio, read_vapi
from memoair_voice_sync.transcripts._cues import read_srt, read_webvtt
from memoair_voice_sync.transcripts._identifiers import InvalidTurnError
from memoair_voice_sync.transcripts._json_lines import read_json_lines
from memoair_voice_sync.transcripts._lines import hash_head, peek_head
from memoair_voice_sync.transcripts._plain_text import read_plain_text
from memoair_voice_sync.transcripts._records import (
    PartialTurn,
    Rejection,
    TranscriptOptions,
    TranscriptSource,
    TranscriptTurn,
)
from memoair_voice_sync.transcripts._turn_ids import TurnIds

# By what is in the first of a file: what no line of another format has, but within a text, where it is escaped.
_EXPORT_SIGNATURES = {
    "twilio": re.compile(rb'"(?:media_channel|sentence_index)"\s*:'),
    "vapi": re.compile(
        rb'"(?:secondsFromStart|messagesOpenAIFormatted)"\s*:|"(?:end-of-call-report|(?:in|out)boundPhoneCall|webCall)"'
    ),
    "retell": re.compile(rb'"(?:transcript_object|transcript_with_tool_calls|call_analysis)"\s*:|"(?:web|phone)_call"'),
}
_OWN_FIELDS = re.compile(rb'"(?:userText|assistantText|sessionId)"\s*:')
_SUBTITLE_SIGNATURES = {
    "webvtt": re.compile(rb"WEBVTT(?:\s|$)"),
    "srt": re.compile(rb"\s*\d+\s*\n\s*\d+:\d\d:\d\d,\d{3}\s*-->"),
}
_JSON_START = re.compile(rb"\s*(?:\{|\[\s*[{\[])")  # a text may begin with "[00:12]"


class TranscriptReader(Protocol):
    """Reads one file, from its first byte on; refuses what it can't read, and raises nothing."""

    def __call__(self, stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
        """The turns in the order in which they stand, and between them what is refused."""


@attrs.frozen
class TranscriptFormat:
    """A format: its name, the ends of names that its files have, and how they are read."""

    name: str
    suffixes: tuple[str, ...]
    read: TranscriptReader


# A new format is a module with a `TranscriptReader`, and a line here.
FORMATS: Mapping[str, TranscriptFormat] = MappingProxyType(
    {
        reader.name: reader
        for reader in (
            TranscriptFormat("jsonl", (".jsonl", ".ndjson", ".json"), read_json_lines),
            TranscriptFormat("text", (".txt", ".text"), read_plain_text),
            TranscriptFormat("webvtt", (".vtt", ".webvtt"), read_webvtt),
            TranscriptFormat("srt", (".srt",), read_srt),
            TranscriptFormat("twilio", (), read_twilio),
            TranscriptFormat("vapi", (), read_vapi),
            TranscriptFormat("retell", (), read_retell),
        )
    }
)


def read_transcript(
    stream: BinaryIO,
    name: str,
    options: TranscriptOptions | None = None,
    *,
    format: str | None = None,  # noqa: A002
) -> Iterator[TranscriptTurn | Rejection]:
    """Read the turns of a file that is open, and what is refused of it, in the order in which they stand.

    ``name`` is what refusals call the file; ``format`` is one of `FORMATS`, by default told by the name or by the first
    signs of the file. Never holds more than a line (of an export, a call) and the turns that are not over yet; raises
    ValueError for a format that is not known, and nothing for what is in the file.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"the format can be {', '.join(FORMATS)}, not {format!r}")
    return _read_turns(stream, name, options or TranscriptOptions(), format)


def format_of(name: str, head: bytes) -> str:
    """The format of a file, by its name, or else by how it begins; whose export JSON is, by what is in it."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    by_name = next((known.name for known in FORMATS.values() if name.lower().endswith(known.suffixes or ("\0",))), None)
    if by_name == "jsonl" or (by_name is None and _JSON_START.match(head)):
        export = None if _OWN_FIELDS.search(head) else _first_match(_EXPORT_SIGNATURES, lambda sign: sign.search(head))
        return export or "jsonl"
    return by_name or _first_match(_SUBTITLE_SIGNATURES, lambda sign: sign.match(head)) or "text"


def _first_match(
    signatures: Mapping[str, re.Pattern[bytes]], matches: Callable[[re.Pattern[bytes]], object]
) -> str | None:
    return next((name for name, sign in signatures.items() if matches(sign)), None)


def _read_turns(
    stream: BinaryIO, name: str, options: TranscriptOptions, format_: str | None
) -> Iterator[TranscriptTurn | Rejection]:
    try:
        head, rewound = peek_head(stream)
    except (OSError, EOFError) as error:
        yield Rejection(name, 0, f"the file can't be read: {getattr(error, 'strerror', None) or error}")
        return
    # By what it says and not by its name: a copy in another folder is the same call.
    source = TranscriptSource(name, options.session_id or f"call-{hash_head(head)}", options)
    ids = TurnIds()
    for item in FORMATS[format_ or format_of(name, head)].read(rewound, source):
        if isinstance(item, Rejection):
            yield item
            continue
        try:
            yield ids.assign_id(item)
        except InvalidTurnError as error:
            yield source.reject(item.line, str(error))
