"""JSON documents in a file: one per line, or one document that is the file, which may be a list of them."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import attrs

from memoair_transcripts._json_lines import read_json, type_name
from memoair_transcripts._lines import unreadable_reason
from memoair_transcripts._records import InvalidTurnError

# One document is held in memory at a time; parsed, it takes several times its size.
MAX_DOCUMENT_BYTES = 16 << 20
_TOO_LONG = f"longer than {MAX_DOCUMENT_BYTES} bytes; write one call per line"


@attrs.frozen
class JsonDocument:
    """A JSON object of a file.

    Attributes:
        line: The line it starts on.
        content: The object.
        position: Its position in a list, from 1. None outside of a list.
        error: Why there is no object.
    """

    line: int
    content: dict[str, Any] = attrs.field(factory=dict, repr=False)
    position: int | None = None
    error: str | None = None


def read_documents(stream: BinaryIO) -> Iterator[JsonDocument]:
    """Yield the documents of a file. A document on a line of its own is rejected without affecting the others."""
    try:
        yield from _read_by_line(stream)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        yield JsonDocument(0, error=f"reading the file failed: {reason}")


def _read_by_line(stream: BinaryIO) -> Iterator[JsonDocument]:
    line, is_first = 0, True
    while raw := stream.readline(MAX_DOCUMENT_BYTES + 2):
        line += 1
        if line == 1 and (unreadable := unreadable_reason(raw)) is not None:
            yield JsonDocument(0, error=unreadable)
            return
        raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
        if len(raw.rstrip(b"\r\n")) > MAX_DOCUMENT_BYTES:
            yield JsonDocument(line, error=_TOO_LONG)
            _skip_line(stream, raw)
        elif raw.strip():
            try:
                parsed = _parse(raw)
            except InvalidTurnError as error:
                if is_first:  # the document may span many lines
                    yield from _read_as_one_document(raw, stream, line)
                    return
                yield JsonDocument(line, error=str(error))
            else:
                yield from _split_documents(parsed, line)
        is_first = is_first and not raw.strip()


def _read_as_one_document(start: bytes, rest: BinaryIO, line: int) -> Iterator[JsonDocument]:
    content = start + rest.read(MAX_DOCUMENT_BYTES + 1 - min(len(start), MAX_DOCUMENT_BYTES))
    if len(content) > MAX_DOCUMENT_BYTES:
        yield JsonDocument(line, error=_TOO_LONG)
        return
    try:
        yield from _split_documents(_parse(content), line)
    except InvalidTurnError as error:
        yield JsonDocument(line, error=str(error))


def _parse(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidTurnError(f"byte {error.start + 1} is not UTF-8") from None
    return read_json(text)


def _split_documents(parsed: Any, line: int) -> Iterator[JsonDocument]:
    is_list = isinstance(parsed, list)
    for index, content in enumerate(parsed if is_list else [parsed], 1):
        position = index if is_list else None
        if isinstance(content, dict):
            yield JsonDocument(line, content, position)
        else:
            yield JsonDocument(line, {}, position, f"{type_name(content)}, not a JSON object")


def _skip_line(stream: BinaryIO, raw: bytes) -> None:
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(1 << 16)
