"""From PDF to Markdown: the text of the pages, with the bookmarks as headings."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from memoair_documents.errors import UnreadableFileError
from memoair_documents.markdown import TitledText, escape_marks
from memoair_protocol.installing import install_command

if TYPE_CHECKING:
    from pypdf import PdfReader

MAX_PAGES = 5_000
_MAX_BOOKMARKS = 10_000
_MAX_LEVEL = 6
# A line at the edge of that many pages, and of more than half of them, is a running title or a page number.
_MIN_REPEATED = 3
_NUMBER = re.compile(r"\d+")
# What word processors put where the author has entered no title.
_TOOL_TITLE = re.compile(
    r"^(?:Microsoft \w+ - .*|untitled.*|.*\.(?:docx?|odt|indd|pdf|pptx?|xlsx?|tex|dvi))$", re.IGNORECASE
)
_SENTENCE_END = (".", "!", "?", ":", ";")


@attrs.frozen
class _Bookmark:
    level: int
    title: str


def pdf_to_markdown(content: bytes) -> TitledText:
    """Return the text of a PDF file, with its bookmarks as headings. Running titles and page numbers are left out.

    Args:
        content: The bytes of the file. A hostile file can take much time and memory: read files of strangers with
            `memoair_documents.reader_process`.

    Raises:
        UnreadableFileError: If the file is encrypted or damaged, has too many pages, or has no text.
    """
    try:
        from pypdf import PdfReader
    except ImportError:
        raise UnreadableFileError(f"PDF files need: {install_command('documents')}") from None
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):  # many are encrypted, but open without a password
            raise UnreadableFileError("encrypted: remove its password first")
        page_count = len(reader.pages)
        if page_count > MAX_PAGES:
            raise UnreadableFileError(f"{page_count:,} pages; split it into files of at most {MAX_PAGES:,}")
        pages = [_split_lines(page.extract_text()) for page in reader.pages]
        if not any(pages):
            raise UnreadableFileError("no text: its pages are images, which need text recognition (OCR) first")
        pages = _drop_running_lines(pages)
        bookmarks = _find_bookmarks(reader)
        blocks = [block for number, lines in enumerate(pages) for block in _format(lines, bookmarks.get(number, ()))]
        return TitledText(_find_title(reader), "\n\n".join(blocks) + "\n")
    except (UnreadableFileError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - damage of all kinds raises errors of all kinds
        if type(error).__name__ == "DependencyError":  # AES, which needs a library that we do not require
            raise UnreadableFileError("encrypted: remove its password first") from None
        raise UnreadableFileError("not a valid PDF file") from None


def _split_lines(text: str) -> list[str]:
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]


def _drop_running_lines(pages: Sequence[list[str]]) -> list[list[str]]:
    """Return the pages without the first and last lines that most pages have, whatever their numbers."""
    counts = Counter(key for lines in pages for key in {*_edges(lines)})
    limit = max(_MIN_REPEATED, len(pages) // 2 + 1)
    running = {key for key, count in counts.items() if count >= limit}
    kept = []
    for lines in pages:
        start, end = 0, len(lines)
        while start < end and _shape(lines[start]) in running:
            start += 1
        while end > start and _shape(lines[end - 1]) in running:
            end -= 1
        kept.append(lines[start:end])
    return kept


def _edges(lines: Sequence[str]) -> Iterator[str]:
    for line in (*lines[:2], *lines[-2:]):
        yield _shape(line)


def _shape(line: str) -> str:
    return _NUMBER.sub("0", line)


def _find_bookmarks(reader: "PdfReader") -> dict[int, list[_Bookmark]]:
    """Return the bookmarks of each page that has some, by its number from 0."""
    found: dict[int, list[_Bookmark]] = {}
    count = 0

    def walk(items: Sequence[Any], level: int) -> None:
        nonlocal count
        for item in items:
            if isinstance(item, list):
                walk(item, level + 1)
                continue
            count += 1
            page = reader.get_destination_page_number(item)
            title = " ".join(str(item.title or "").split())
            if title and page is not None and page >= 0 and count <= _MAX_BOOKMARKS:
                found.setdefault(page, []).append(_Bookmark(min(level, _MAX_LEVEL), title))

    try:
        walk(reader.outline, 1)
    except Exception:  # noqa: BLE001 - bookmarks that cannot be read cost the headings, not the text
        return {}
    return found


def _find_title(reader: "PdfReader") -> str:
    try:
        title = " ".join(str((reader.metadata and reader.metadata.title) or "").split())
    except Exception:  # noqa: BLE001 - as for bookmarks
        return ""
    return "" if _TOOL_TITLE.match(title) else title


def _format(lines: Sequence[str], bookmarks: Sequence[_Bookmark]) -> Iterator[str]:
    """Yield the blocks of a page: each bookmark is a heading where the page has its words, or else where it stands."""
    place = 0
    for bookmark in bookmarks:
        start, end = _find_line(lines, bookmark.title, place)
        yield from _paragraphs(lines[place:start])
        yield f"{'#' * bookmark.level} {bookmark.title}"
        place = end
    yield from _paragraphs(lines[place:])


def _find_line(lines: Sequence[str], title: str, place: int) -> tuple[int, int]:
    """Return the first and the next line of a title, which may be on up to three lines."""
    wanted = title.casefold()
    for start in range(place, len(lines)):
        for end in range(start + 1, min(start + 3, len(lines)) + 1):
            if " ".join(lines[start:end]).casefold() == wanted:
                return start, end
    return place, place


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    """Yield text in which a sentence that the layout has broken is one line again."""
    text = ""
    for line in lines:
        if text.endswith("-") and line[:1].islower() and text[-2:-1].isalpha():
            text = text[:-1] + line
        elif text and not text.endswith(_SENTENCE_END) and line[:1].islower():
            text += f" {line}"
        else:
            text += f"\n{line}" if text else line
    if text:
        yield escape_marks(text)
