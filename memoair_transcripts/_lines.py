"""Split a stream into numbered lines of text. An undecodable line does not affect the others."""

import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO

import attrs

# The largest request that a runtime accepts, so a longer line can never be saved as a turn. No more than this of a
# line is in memory at a time.
MAX_LINE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
_UTF8_BOM = b"\xef\xbb\xbf"
# The first bytes of files that have no readable lines. One rejection of the file is more useful than one per line.
_UNREADABLE_SIGNATURES = {
    b"\xff\xfe": "the file is UTF-16; save it as UTF-8",
    b"\xfe\xff": "the file is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "the file is compressed (gzip); decompress it first",
    b"PK\x03\x04": "the file is compressed (zip); decompress it first",
    b"(\xb5/\xfd": "the file is compressed (zstd); decompress it first",
}


@attrs.frozen
class TextLine:
    """A line without its line break. ``error`` says why there is no text."""

    number: int
    text: str
    error: str | None = None


def read_lines(stream: BinaryIO) -> Iterator[TextLine]:
    """Yield the lines of a stream, blank ones too. A read error is the last item."""
    number = 0
    while True:
        number += 1
        try:
            raw = stream.readline(MAX_LINE_BYTES + 2)  # with its line break
            is_too_long = len(raw.rstrip(b"\r\n")) > MAX_LINE_BYTES
            if is_too_long:
                _skip_rest(stream, raw)
        except (OSError, EOFError) as error:
            yield TextLine(number, "", f"reading the file failed: {getattr(error, 'strerror', None) or error}")
            return
        if not raw:
            return
        if number == 1:
            unreadable = unreadable_reason(raw)
            if unreadable is not None:
                yield TextLine(0, "", unreadable)
                return
            raw = raw.removeprefix(_UTF8_BOM)
        if is_too_long:
            yield TextLine(number, "", f"the line is longer than {MAX_LINE_BYTES} bytes")
            continue
        yield _decode(number, raw)


def unreadable_reason(head: bytes) -> str | None:
    """Return why a file with this head has no readable lines, or None if it may have some."""
    return next((why for beginning, why in _UNREADABLE_SIGNATURES.items() if head.startswith(beginning)), None)


def peek_head(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """Return the first 64 KiB of a stream, and a stream that still has them. The stream need not be seekable."""
    head = bytearray()
    while len(head) < _BLOCK_BYTES and (block := stream.read(_BLOCK_BYTES - len(head))):
        head += block
    if stream.seekable():
        stream.seek(-len(head), io.SEEK_CUR)
        return bytes(head), stream
    return bytes(head), io.BufferedReader(_PrependedStream(bytes(head), stream), _BLOCK_BYTES)


def hash_head(head: bytes) -> str:
    """Return a hash that identifies the head of a file."""
    return hashlib.sha256(head).hexdigest()[:20]


def _skip_rest(stream: BinaryIO, raw: bytes) -> None:
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(_BLOCK_BYTES)


def _decode(number: int, raw: bytes) -> TextLine:
    try:
        return TextLine(number, raw.rstrip(b"\r\n").decode())
    except UnicodeDecodeError as error:
        return TextLine(number, "", f"byte {error.start + 1} of the line is not UTF-8")


class _PrependedStream(io.RawIOBase):
    """A stream with its head, which was already read, put back in front."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Read into a buffer and return the number of bytes."""
        block = self._head[: len(buffer)] if self._head else self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)
