"""From the bytes of a file to text, in any common encoding."""

import codecs
import re

from memoair_documents.errors import UnreadableFileError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# A guess needs evidence: of a text with fewer bytes beyond ASCII, charset-normalizer took "Café" for Urdu.
_MIN_GUESS_BYTES = 40
_SAMPLE_BYTES = 4096
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def is_known_encoding(name: str) -> bool:
    """Return whether `decode_text` accepts an encoding."""
    try:
        return codecs.lookup(name)._is_text_encoding  # noqa: SLF001 - the attribute that bytes.decode asks for
    except (LookupError, ValueError):  # also a name with a NUL
        return False


def decode_text(content: bytes, encoding: str | None = None) -> str:
    """Decode the bytes of a text file, with line feeds as line ends and without a byte order mark.

    Args:
        content: The bytes.
        encoding: Their encoding; None to find it: a byte order mark, UTF-8, UTF-16 without a mark, or else a guess
            that is Windows-1252 unless the text is long enough to show another one.

    Raises:
        UnreadableFileError: If they are binary data, or not in the given encoding.
    """
    if encoding is not None:
        try:
            text = content.decode(encoding)
        except UnicodeError:
            raise UnreadableFileError(f"not in the encoding {encoding}") from None
    else:
        text = _decode_unknown(content)
    if _BINARY.search(text[:_SAMPLE_BYTES]):
        raise UnreadableFileError("a binary file")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _decode_unknown(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeError:
                raise UnreadableFileError(f"not in {encoding.upper()}, which it begins as") from None
    try:
        return content.decode()
    except UnicodeDecodeError:
        pass
    zeros = content[:_SAMPLE_BYTES:2].count(0), content[1:_SAMPLE_BYTES:2].count(0)
    if max(zeros) > _SAMPLE_BYTES // 8 or max(zeros) * 4 > len(content[:_SAMPLE_BYTES]):
        try:
            return content.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le")
        except UnicodeError:
            raise UnreadableFileError("a binary file") from None
    if 0 in content[:_SAMPLE_BYTES]:
        raise UnreadableFileError("a binary file")
    return _guess(content)


def _guess(content: bytes) -> str:
    if sum(byte > 127 for byte in content) >= _MIN_GUESS_BYTES:
        from charset_normalizer import from_bytes

        best = from_bytes(content).best()
        if best is not None:
            return str(best)
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        raise UnreadableFileError("not a text in a known encoding; name it with --encoding") from None
