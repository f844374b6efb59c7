"""JSON documents in a file: one on each line, or one that is the file, which may be a list of them."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import attrs

from memoair_voice_sync.transcripts._identifiers import InvalidTurnError
from memoair_voice_sync.transcripts._json_lines import kind_of, read_json
from memoair_voice_sync.transcripts._lines import no_text

# One document at a time is held, and what is made of it some times as much.
MAX_DOCUMENT_BYTES = 16 << 20
_TOO_LONG = f"longer than {MAX_DOCUMENT_BYTES} bytes; write one call on each line"


@attrs.frozen
class JsonDocument:
    """An object, the line that it begins on, and its place in a list, from 1. ``problem`` says why there is none."""

    line: int
    content: dict[str, Any] = attrs.field(factory=dict, repr=False)
    number: int | None = None
    problem: str | None = None


def read_documents(stream: BinaryIO) -> Iterator[JsonDocument]:
    """The documents of a file, each refused by itself if it is on a line of its own."""
    try:
        yield from _read(stream)
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        yield JsonDocument(0, problem=f"the file can't be read any further: {why}")


def _read(stream: BinaryIO) -> Iterator[JsonDocument]:
    line, is_first = 0, True
    while raw := stream.readline(MAX_DOCUMENT_BYTES + 2):
        line += 1
        if line == 1 and (problem := no_text(raw)) is not None:
            yield JsonDocument(0, problem=problem)
            return
        raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
        if len(raw.rstrip(b"\r\n")) > MAX_DOCUMENT_BYTES:
            yield JsonDocument(line, problem=_TOO_LONG)
            _skip_line(stream, raw)
        elif raw.strip():
            try:
                parsed = _parsed(raw)
            except InvalidTurnError as unfit:
                if is_first:  # it may go on over many lines
                    yield from _whole(raw, stream, line)
                    return
                yield JsonDocument(line, problem=str(unfit))
            else:
                yield from _documents(parsed, line)
        is_first = is_first and not raw.strip()


def _whole(begun: bytes, rest: BinaryIO, line: int) -> Iterator[JsonDocument]:
    content = begun + rest.read(MAX_DOCUMENT_BYTES + 1 - min(len(begun), MAX_DOCUMENT_BYTES))
    if len(content) > MAX_DOCUMENT_BYTES:
        yield JsonDocument(line, problem=_TOO_LONG)
        return
    try:
        yield from _documents(_parsed(content), line)
    except InvalidTurnError as unfit:
        yield JsonDocument(line, problem=str(unfit))


def _parsed(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidTurnError(f"byte {error.start + 1} is not UTF-8") from None
    return read_json(text)


def _documents(parsed: Any, line: int) -> Iterator[JsonDocument]:
    several = isinstance(parsed, list)
    for number, each in enumerate(parsed if several else [parsed], 1):
        place = number if several else None
        if isinstance(each, dict):
            yield JsonDocument(line, each, place)
        else:
            yield JsonDocument(line, {}, place, f"{kind_of(each)}, not a JSON object")


def _skip_line(stream: BinaryIO, raw: bytes) -> None:
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(1 << 16)
