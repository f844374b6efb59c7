"""The table of transcript formats, and the function that reads all of them."""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO, Protocol

import attrs

from memoair_transcripts._cues import read_srt, read_webvtt
from memoair_transcripts._json_lines import read_json_lines
from memoair_transcripts._lines import hash_head, peek_head
from memoair_transcripts._plain_text import read_plain_text
from memoair_transcripts._platforms import read_elevenlabs, read_retell, read_vapi
from memoair_transcripts._recognizers import read_assemblyai, read_deepgram, read_rev, read_twilio
from memoair_transcripts._records import (
    InvalidTurnError,
    PartialTurn,
    Rejection,
    SkippedItem,
    TranscriptOptions,
    TranscriptSource,
    TranscriptTexts,
    TranscriptTurn,
)
from memoair_transcripts._turn_ids import TurnIds

# Signatures in the head of a file. No other format has them, except inside of strings, where the quotes are escaped.
_EXPORT_SIGNATURES = {
    "twilio": re.compile(rb'"(?:media_channel|sentence_index)"\s*:'),
    "vapi": re.compile(
        rb'"(?:secondsFromStart|messagesOpenAIFormatted|assistantOverrides)"\s*:'
        rb'|"(?:end-of-call-report|(?:in|out)boundPhoneCall|webCall|vapi\.websocketCall)"'
    ),
    "retell": re.compile(
        rb'"(?:transcript_object|(?:scrubbed_)?transcript_with_tool_calls|call_analysis)"\s*:|"call_type"\s*:\s*"(?:web|phone)_call"'
    ),
    "elevenlabs": re.compile(
        rb'"(?:time_in_call_secs|conversation_initiation_client_data|call_duration_secs)"\s*:|"post_call_\w+"'
    ),
    "rev": re.compile(rb'"monologues"\s*:'),
    "assemblyai": re.compile(rb'"(?:audio_url|speech_models?|speaker_labels|acoustic_model|language_model)"\s*:'),
    "deepgram": re.compile(rb'"(?:punctuated_word|model_info|model_uuid|alternatives)"\s*:'),
}
# In an object of the file itself. Some platforms have a sessionId inside.
_OWN_FIELDS = re.compile(rb'"(?:userText|assistantText)"\s*:|^\s*\[?\s*\{[^{}\[\]]*"sessionId"\s*:')
_SUBTITLE_SIGNATURES = {
    "webvtt": re.compile(rb"WEBVTT(?:\s|$)"),
    "srt": re.compile(rb"\s*\d+\s*\n\s*\d+:\d\d:\d\d,\d{3}\s*-->"),
}
_JSON_START = re.compile(rb"\s*(?:\{|\[\s*[{\[])")  # not "[00:12]", as a text may begin


class TranscriptReader(Protocol):
    """A reader of one format. It rejects what it cannot read, and raises nothing."""

    def __call__(self, stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
        """Yield the turns of a file in order, and the rejections between them."""


@attrs.frozen
class TranscriptFormat:
    """A transcript format.

    Attributes:
        name: Its name, a key of `FORMATS`.
        suffixes: The file name extensions that select it.
        read: The reader of its files.
    """

    name: str
    suffixes: tuple[str, ...]
    read: TranscriptReader


# To add a format, write a module with a `TranscriptReader` and add a line here.
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
            TranscriptFormat("elevenlabs", (), read_elevenlabs),
            TranscriptFormat("deepgram", (), read_deepgram),
            TranscriptFormat("assemblyai", (), read_assemblyai),
            TranscriptFormat("rev", (), read_rev),
        )
    }
)


def read_transcript(
    stream: BinaryIO,
    name: str,
    options: TranscriptOptions | None = None,
    *,
    format: str | None = None,  # noqa: A002
    on_skip: Callable[[SkippedItem], None] | None = None,
    redact: Callable[[TranscriptTexts], TranscriptTexts] | None = None,
) -> Iterator[TranscriptTurn | Rejection]:
    """Read the turns of an open file.

    The file is streamed: in memory are one line (of an export, one call) and the turns that are still open.

    Args:
        stream: The file, open for reading bytes. It need not be seekable.
        name: The name of the file in rejections. Its extension may select the format.
        options: What the file does not say itself, such as the caller's id.
        format: A key of `FORMATS`. By default it is detected from the name and the head of the file.
        on_skip: Called with each part of the file that is passed over, because neither the caller nor the agent said
            it.
        redact: Removes personal data from the texts of a turn. Generated turn ids are made from what it returns. A turn
            that it fails for is rejected.

    Returns:
        An iterator of turns and rejections, in the order of the file. It raises nothing for invalid content.

    Raises:
        ValueError: The format is unknown.

    Example:
        ```python
        with open("calls.jsonl", "rb") as stream:
            for item in read_transcript(stream, "calls.jsonl"):
                if isinstance(item, Rejection):
                    print(item)
        ```
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; the formats are {', '.join(FORMATS)}")
    return _read_turns(stream, name, options or TranscriptOptions(), format, on_skip, redact)


def format_of(name: str, head: bytes) -> str:
    """Detect the format of a file.

    Args:
        name: The name of the file.
        head: The first bytes of the file. They tell the exports of different platforms apart, which are all JSON.

    Returns:
        A key of `FORMATS`.
    """
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
    stream: BinaryIO,
    name: str,
    options: TranscriptOptions,
    format_: str | None,
    on_skip: Callable[[SkippedItem], None] | None,
    redact: Callable[[TranscriptTexts], TranscriptTexts] | None,
) -> Iterator[TranscriptTurn | Rejection]:
    try:
        head, rewound = peek_head(stream)
    except (OSError, EOFError) as error:
        yield Rejection(name, 0, f"the file is not readable: {getattr(error, 'strerror', None) or error}")
        return
    # Identified by its content, not its name: a copy in another folder is the same call.
    call_id = options.session_id or f"call-{hash_head(head)}"
    source = TranscriptSource(name, call_id, options, head.removeprefix(b"\xef\xbb\xbf"), on_skip)
    ids = TurnIds()
    for item in FORMATS[format_ or format_of(name, head)].read(rewound, source):
        if isinstance(item, Rejection):
            yield item
            continue
        try:
            yield ids.assign_id(item if redact is None else _redact_turn(item, redact))
        except InvalidTurnError as error:
            yield source.reject(item.line, str(error))


def _redact_turn(turn: PartialTurn, redact: Callable[[TranscriptTexts], TranscriptTexts]) -> PartialTurn:
    names = [field.name for field in attrs.fields(TranscriptTexts)]
    try:
        redacted = redact(TranscriptTexts(**{name: getattr(turn, name) for name in names}))
        return attrs.evolve(turn, **{name: getattr(redacted, name) for name in names})
    except Exception:  # noqa: BLE001 - whatever the error, the texts must not be saved; and it may quote them
        raise InvalidTurnError("redaction failed; the turn is not saved") from None
