"""From bytes to lines of text: one at a time, numbered, each refused by itself where it can't be one."""

import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO

import attrs

# A runtime takes requests of 1 MiB, so no longer line could ever be kept as a turn. Of one that is longer, no more
# than this is ever in memory.
MAX_LINE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
_UTF8_BOM = b"\xef\xbb\xbf"
# How files begin in which no line can be read; to refuse each of their lines would help nobody.
_UNREADABLE_SIGNATURES = {
    b"\xff\xfe": "the file is UTF-16; save it as UTF-8",
    b"\xfe\xff": "the file is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "the file is packed (gzip); unpack it first",
    b"PK\x03\x04": "the file is packed (zip); unpack it first",
    b"(\xb5/\xfd": "the file is packed (zstd); unpack it first",
}


@attrs.frozen
class TextLine:
    """A line without its end. ``problem`` says why there is no text."""

    number: int
    text: str
    error: str | None = None


def read_lines(stream: BinaryIO) -> Iterator[TextLine]:
    """The lines of a stream, blank ones too. A disk that fails ends it with a problem."""
    number = 0
    while True:
        number += 1
        try:
            raw = stream.readline(MAX_LINE_BYTES + 2)  # with the line's end
            is_too_long = len(raw.rstrip(b"\r\n")) > MAX_LINE_BYTES
            if is_too_long:
                _skip_rest(stream, raw)
        except (OSError, EOFError) as error:
            yield TextLine(
                number, "", f"the file can't be read any further: {getattr(error, 'strerror', None) or error}"
            )
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
    """Why no line can be read in a file that begins so; None where one may."""
    return next((why for beginning, why in _UNREADABLE_SIGNATURES.items() if head.startswith(beginning)), None)


def peek_head(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first 64 KiB of a stream, and a stream that begins with them again, also where there is no way back."""
    head = bytearray()
    while len(head) < _BLOCK_BYTES and (block := stream.read(_BLOCK_BYTES - len(head))):
        head += block
    if stream.seekable():
        stream.seek(-len(head), io.SEEK_CUR)
        return bytes(head), stream
    return bytes(head), io.BufferedReader(_PrependedStream(bytes(head), stream), _BLOCK_BYTES)


def hash_head(head: bytes) -> str:
    """What tells one file's beginning from another's."""
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
    """What was read of a stream already, and then the rest of it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Fill the buffer as far as it goes."""
        block = self._head[: len(buffer)] if self._head else self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)
