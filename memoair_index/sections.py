"""Sections of a Markdown text: what stands under each heading, with the path of headings above it."""

import re
from collections.abc import Iterator

import attrs

# CommonMark: a heading is a line with one to six number signs, or a paragraph that is underlined with = or -. Neither
# counts in a fenced block, nor where a line is indented by four spaces. Headings in quotes and lists are text.
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_CLOSING_MARKS = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
# What begins a line that is not part of a paragraph, and so cannot be underlined: a list, a quote, a table, HTML, an
# indented block, a rule.
_NOT_A_PARAGRAPH = re.compile(r" {0,3}(?:[-+*>|<]|\d{1,9}[.)] )| {4}|\t")
# What ends a paragraph without an empty line: a quote or a list.
_INTERRUPTION = re.compile(r" {0,3}(?:>|[-+*][ \t]|1[.)][ \t])")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # not str.splitlines, which also ends lines at form feeds
_MARKUP = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|\*{1,3}(?=\S)(.+?)(?<=\S)\*{1,3}|`+([^`]+)`+|\\(?=[!-/:-@\[-`{-~])")


@attrs.frozen
class Section:
    """What stands under one heading.

    Attributes:
        headings: The headings above the text, from the outermost to its own; empty before the first heading.
        text: The text without its heading.
    """

    headings: tuple[str, ...]
    text: str


def split_sections(text: str) -> list[Section]:
    """Split a Markdown text at its headings.

    Args:
        text: Text in Markdown.

    Returns:
        The sections in order, without those that have no text. A heading over nothing but headings is in the paths of
        those. A text of headings alone is one section of its own text.
    """
    sections = [section for section in _iterate_sections(text) if section.text.strip()]
    return sections or [Section((), text)]


def _iterate_sections(text: str) -> Iterator[Section]:
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    paragraph_start: int | None = None  # the place in `lines` of the paragraph that the next line would continue
    fence = ""
    for line in _LINE.findall(text):
        bare = line.rstrip()
        found: tuple[int, str] | None = None
        if fence:
            closes = _FENCE.match(bare)
            if closes and closes[1].startswith(fence) and not bare.strip().strip(fence[0]):
                fence = ""
        elif opens := _FENCE.match(bare):
            fence, paragraph_start = opens[1], None
        elif heading := _HEADING.match(bare):
            found = len(heading[1]), _CLOSING_MARKS.sub("", heading[2] or "")
        elif paragraph_start is not None and (underline := _UNDERLINE.match(bare)):
            found = 1 if underline[1][0] == "=" else 2, " ".join("".join(lines[paragraph_start:]).split())
            del lines[paragraph_start:]
        elif not bare or _INTERRUPTION.match(line):
            paragraph_start = None
        elif paragraph_start is None and not _NOT_A_PARAGRAPH.match(line) and not _continues_block(lines):
            paragraph_start = len(lines)
        if found is None:
            lines.append(line)
            continue
        yield Section(tuple(name for _, name in path), "".join(lines))
        level, name = found
        path = [(above, title) for above, title in path if above < level]
        if name := _plain(name):
            path.append((level, name))
        lines, paragraph_start = [], None
    yield Section(tuple(name for _, name in path), "".join(lines))


def _continues_block(lines: list[str]) -> bool:
    """Return whether the next line belongs to the list, quote, table or HTML that the last line is part of."""
    return bool(lines and lines[-1].strip())


def _plain(heading: str) -> str:
    """Return a heading without marks of emphasis, code and links."""
    return " ".join(_MARKUP.sub(lambda match: match[1] or match[2] or match[3] or "", heading).split())
