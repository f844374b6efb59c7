"""PDF and DOCX files: what text they become, and what is refused."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from documents.made_files import change_docx, encrypt_pdf, make_docx, make_pdf

from memoair_documents import pdf
from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.html import html_to_markdown
from memoair_documents.reader_process import ReaderProcess
from memoair_documents.reading import ReadOptions, read_documents
from memoair_index.chunks import split_text


def read_one(name: str, content: bytes) -> dict[str, Any]:
    [(line, document)] = read_documents(name, content, ReadOptions())
    assert line == 0
    return document


def refusal_of(name: str, content: bytes) -> str:
    with pytest.raises(UnreadableFileError) as refusal:
        read_one(name, content)
    return str(refusal.value)


def handbook(document: Any) -> None:
    document.add_paragraph("Handbook", style="Title")
    document.add_heading("Returns", 1)
    document.add_heading("Boots", 2)
    document.add_paragraph("Within thirty days.")
    document.add_paragraph("With the receipt", style="List Bullet")
    document.add_heading("Fees", 1)
    table = document.add_table(rows=2, cols=2)
    for row, cells in enumerate((("Parcel", "Fee"), ("small", "4 euros"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text


def test_a_docx_file_keeps_its_title_headings_lists_and_the_rows_of_its_tables() -> None:
    document = read_one("shop/handbook.docx", make_docx(handbook))
    assert document["id"] == "shop/handbook.docx"
    assert document["metadata"] == {"title": "Handbook", "format": "markdown"}
    assert document["text"] == (
        "# Returns\n\n## Boots\n\nWithin thirty days.\n\n- With the receipt\n\n# Fees\n\n"
        "Parcel | Fee\nsmall | 4 euros\n"
    )
    assert "Handbook > Returns > Boots\nWithin thirty days." in split_text(document["text"], document["metadata"])[0]


def test_the_title_of_a_docx_file_is_that_of_its_properties() -> None:
    def fill(document: Any) -> None:
        document.core_properties.title = "Fees & times"
        document.add_paragraph("# no heading")

    document = read_one("a.DOCX", make_docx(fill))
    assert document["metadata"]["title"] == "Fees & times"
    assert document["text"] == "\\# no heading\n"


def test_images_of_a_docx_file_do_not_become_text(tmp_path: Path) -> None:
    from PIL import Image

    Image.effect_noise((200, 200), 90).save(tmp_path / "noise.png")
    content = make_docx(
        lambda document: (document.add_picture(str(tmp_path / "noise.png")), document.add_paragraph("x"))
    )
    assert read_one("a.docx", content)["text"] == "x\n"


def entity_bomb(name: str, part: bytes) -> bytes:
    if name != "word/document.xml":
        return part
    entities = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10))
    declaration, _, body = part.partition(b"?>")
    return declaration + b'?><!DOCTYPE x [<!ENTITY a0 "ha">' + entities + b"]>" + body


def in_utf16(name: str, part: bytes) -> bytes:
    return entity_bomb(name, part).decode().replace("UTF-8", "UTF-16").encode("utf-16") if "document" in name else part


def deep(name: str, part: bytes) -> bytes:
    table = b"<w:tbl><w:tr><w:tc>", b"</w:tc></w:tr></w:tbl>"
    body = table[0] * 20_000 + b"<w:p/>" + table[1] * 20_000
    return part.replace(b"<w:body>", b"<w:body>" + body) if name == "word/document.xml" else part


def zip_bomb() -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            archive.writestr(f"word/media/{number}.xml", bytes(60 << 20))
    return output.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "not a valid DOCX file"),
        (lambda: b"PK\x03\x04 torn", "not a valid DOCX file"),
        (lambda: make_docx(handbook)[:-400], "not a valid DOCX file"),
        (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "encrypted, or in the format before DOCX"),
        (lambda: make_docx(lambda _: None), "no text"),
        (lambda: change_docx(make_docx(handbook), entity_bomb), "declares XML entities"),
        (lambda: change_docx(make_docx(handbook), in_utf16), "declares XML entities"),
        (lambda: change_docx(make_docx(handbook), deep), "nested too deeply"),
        (zip_bomb, "unpacks to more than 256 MB"),
    ],
)
def test_a_docx_file_that_cannot_be_read_is_refused_with_the_reason(content: Any, reason: str) -> None:
    assert reason in refusal_of("a.docx", content())


def test_a_pdf_file_keeps_its_title_and_its_bookmarks_as_headings() -> None:
    pages = [
        [
            "Shop handbook, page 1",
            "Returns",
            "Boots and",
            "shoes",
            "Both go back within thirty",
            "days with the re-",
            "ceipt.",
        ],
        ["Shop handbook, page 2", "# is the sign for a number."],
        ["Shop handbook, page 3", "Parcels", "are free."],
    ]
    bookmarks = {0: [("Returns", 0), ("Boots and shoes", 1)], 2: [("Fees", 0)]}
    document = read_one("a.pdf", make_pdf(pages, title="Handbook", bookmarks=bookmarks))
    assert document["metadata"] == {"title": "Handbook", "format": "markdown"}
    assert document["text"] == (
        "# Returns\n\n## Boots and shoes\n\nBoth go back within thirty days with the receipt.\n\n"
        "\\# is the sign for a number.\n\n# Fees\n\nParcels are free.\n"
    )


@pytest.mark.parametrize("title", ["", "Microsoft Word - fees.doc", "untitled", "fees.indd"])
def test_a_title_that_a_program_wrote_does_not_count(title: str) -> None:
    document = read_one("a.pdf", make_pdf([["We open", "At nine."]], title=title, bookmarks={0: [("Hours", 0)]}))
    assert document["metadata"] == {"title": "Hours", "format": "markdown"}


def test_a_pdf_file_that_needs_no_password_to_open_is_read() -> None:
    assert read_one("a.pdf", encrypt_pdf(make_pdf([["We open at nine."]]), ""))["text"] == "We open at nine.\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "not a valid PDF file"),
        (lambda: b"%PDF-1.7\n", "not a valid PDF file"),
        (lambda: make_pdf([["x"]])[:300], "not a valid PDF file"),
        (lambda: encrypt_pdf(make_pdf([["x"]]), "secret"), "encrypted"),
        (lambda: make_pdf([[], []]), "its pages are images"),
    ],
)
def test_a_pdf_file_that_cannot_be_read_is_refused_with_the_reason(content: Any, reason: str) -> None:
    assert reason in refusal_of("a.pdf", content())


def test_a_pdf_file_with_too_many_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MAX_PAGES", 2)
    assert refusal_of("a.pdf", make_pdf([["x"]] * 3)) == "3 pages; split it into files of at most 2"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pypdf", "mammoth"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    assert "memoair-voice[documents]" in refusal_of("a.pdf", make_pdf([["x"]]))
    assert "memoair-voice[documents]" in refusal_of("a.docx", make_docx(handbook))


def test_front_matter_whose_values_multiply_is_invalid() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    content = "---\n" + "\n".join(lines) + "\n---\ntext\n"
    with pytest.raises(DocumentFileError, match="1: invalid YAML front matter: more than 10,000 values"):
        read_one("a.md", content.encode())


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<table><tr><td><p>a</p></td><td><p>b</p><p>c</p></td></tr><tr><td>d</td></tr></table>", "a | b\nc\nd\n"),
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>after", "a | b\nc | d\n\nafter\n"),
        ("<table><tr><td><h2>Fees</h2><p>None.</p><p>Ever.</p></td></tr></table>", "## Fees\n\nNone.\nEver.\n"),
    ],
)
def test_paragraphs_of_a_cell_stay_in_its_row(html: str, text: str) -> None:
    assert html_to_markdown(html).text == text


@pytest.fixture
def reader() -> Iterator[ReaderProcess]:
    with closing(ReaderProcess()) as process:
        yield process
        assert len(psutil.Process().children()) <= 1


def test_a_process_reads_files_of_all_kinds(reader: ReaderProcess, tmp_path: Path) -> None:
    files = {
        "a.pdf": make_pdf([["We open at nine."]]),
        "b.docx": make_docx(handbook),
        "c.jsonl": b'{"id": "c1", "text": "One."}\n{"id": "c2", "text": "Two."}\n',
        "d.md": b"# Fees\nNone.\n",
    }
    found = {}
    for name, content in files.items():
        (tmp_path / "part").write_bytes(content)
        found[name] = list(reader.read(tmp_path / "part", name, ReadOptions()))
        assert found[name] == list(read_documents(name, content, ReadOptions()))
    assert [line for line, _ in found["c.jsonl"]] == [1, 2]


def test_an_invalid_file_leaves_no_documents_and_the_process_reads_the_next(
    reader: ReaderProcess, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b'{"id": "a", "text": "One."}\n{"id": 7}\n')
    with pytest.raises(DocumentFileError, match=r"^2: not a document"):
        next(reader.read(tmp_path / "a", "a.jsonl", ReadOptions()))
    (tmp_path / "a").write_bytes(b"\0\1")
    with pytest.raises(UnreadableFileError, match="a binary file"):
        next(reader.read(tmp_path / "a", "a.txt", ReadOptions()))
    (tmp_path / "a").write_bytes(b"Good.")
    assert list(reader.read(tmp_path / "a", "a.txt", ReadOptions())) == [(0, {"id": "a.txt", "text": "Good."})]


def test_a_file_that_takes_too_long_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    lines = [["word " * 15] * 40] * 60
    (tmp_path / "slow.pdf").write_bytes(make_pdf(lines))
    (tmp_path / "a.txt").write_bytes(b"Good.")
    with closing(ReaderProcess(timeout_s=0.05)) as reader:
        with pytest.raises(UnreadableFileError, match="longer than 0 seconds"):
            next(reader.read(tmp_path / "slow.pdf", "slow.pdf", ReadOptions()))
        reader._timeout_s = 60
        assert len(list(reader.read(tmp_path / "a.txt", "a.txt", ReadOptions()))) == 1


def test_a_file_that_needs_too_much_memory_is_refused_and_the_next_is_read(
    reader: ReaderProcess, tmp_path: Path
) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UnreadableFileError, match="too much memory"):
        next(reader.read(tmp_path / "large.txt", "large.txt", ReadOptions()))
    (tmp_path / "a.txt").write_bytes(b"Good.")
    assert len(list(reader.read(tmp_path / "a.txt", "a.txt", ReadOptions()))) == 1
