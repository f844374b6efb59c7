"""From HTML to Markdown: headings, paragraphs, lists and rows of tables, without what surrounds the text of a page."""

import re
from html.parser import HTMLParser

from memoair_documents.markdown import TitledText, escape_marks

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# Elements whose content is not the text of the page.
_HIDDEN = {"script", "style", "template", "noscript", "svg", "nav", "footer", "iframe", "select", "button"}
_BLOCKS = set("p div section article main header aside table ul ol dl dd dt blockquote figure form address hr".split())
_CELLS = {"td", "th"}
_PARAGRAPHS = {"p", "div"}


def html_to_markdown(html: str) -> TitledText:
    """Return the text of an HTML page, with its headings as headings in Markdown. Invalid HTML is read as far as it is.

    Scripts, styles, navigation, footers and controls are left out.
    """
    converter = _Converter()
    converter.feed(html)
    converter.close()
    return TitledText(" ".join("".join(converter.title).split()), converter.finish())


class _Converter(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._prefix = ""
        self._hidden: list[str] = []
        self._in_title = self._in_pre = False
        self._in_cell = False
        self._breaks_cell = False  # whether the next words of a cell begin a paragraph of it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - of the parser
        if self._hidden or tag in _HIDDEN:
            if tag in _HIDDEN:
                self._hidden.append(tag)
            return
        if tag == "title":
            self._in_title = True
        elif self._in_cell and tag in _PARAGRAPHS:  # a paragraph of a cell stays in its row
            self._breaks_cell = self._breaks_cell or bool(self._line and self._line[-1].strip(" |\n"))
        elif tag in _HEADINGS:
            self._end_block()
            self._prefix = "#" * _HEADINGS[tag] + " "
        elif tag == "li":
            self._end_block()
            self._prefix = "- "
        elif tag in ("br", "tr"):
            self._line.append("\n")
        elif tag == "pre":
            self._end_block()
            self._in_pre = True
        elif tag in _CELLS:
            self._in_cell, self._breaks_cell = True, False
            if self._line and self._line[-1] != "\n":
                self._line.append(" | ")
        elif tag in _BLOCKS:
            self._end_block()

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag in self._hidden:
                del self._hidden[self._hidden.index(tag) :]
        elif tag == "title":
            self._in_title = False
        elif tag in _CELLS:
            self._in_cell = self._breaks_cell = False
        elif self._in_cell and tag in _PARAGRAPHS:
            self._breaks_cell = True
        elif tag == "pre":
            self._end_block()
            self._in_pre = False
        elif tag in _HEADINGS or tag == "li" or tag in _BLOCKS:
            self._end_block()

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._in_title:
            self.title.append(data)
        else:
            if self._breaks_cell and data.strip():
                self._breaks_cell = False
                self._line.append("\n")
            self._line.append(data if self._in_pre else re.sub(r"\s+", " ", data))

    def finish(self) -> str:
        """Return the text that was read."""
        self._end_block()
        return "".join(self._blocks).strip("\n") + "\n" if self._blocks else ""

    def _end_block(self) -> None:
        text = "".join(self._line)
        self._line, prefix, self._prefix = [], self._prefix, ""
        self._breaks_cell = False
        if prefix.startswith("#"):
            text = " ".join(text.split())
        elif not self._in_pre:
            text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
        if text.strip():
            if not prefix.startswith("#"):
                text = escape_marks(text)
            is_list = prefix == "- "
            previous_is_list = bool(self._blocks) and self._blocks[-1].startswith("- ")
            if is_list and previous_is_list:
                self._blocks[-1] = self._blocks[-1].removesuffix("\n")
            self._blocks.append(f"{prefix}{text}\n\n")
