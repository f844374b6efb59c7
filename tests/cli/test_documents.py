"""``memoair index add``: what files and folders become, what is skipped and why, and what is replaced or deleted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.imports import cloud_environment
from documents.made_files import make_docx, make_pdf
from support.clouds import Client
from support.commands import CommandResult, memoair

from memoair_cli.documents.files import SourceFile, read_file
from memoair_cli.documents.reading import split_batches
from memoair_documents.decoding import decode_text
from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.front_matter import split_front_matter
from memoair_documents.html import html_to_markdown
from memoair_documents.reader_process import ReaderProcess
from memoair_documents.reading import ReadOptions

Add = Callable[..., CommandResult]


@pytest.fixture
def add(client: Client) -> Add:
    """A function that adds paths to the index ``shop`` of a real cloud."""
    return lambda *arguments, **more: memoair("index", "add", "shop", *arguments, **cloud_environment(client), **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of each kind, and what does not belong to it."""
    files: dict[str, bytes] = {
        "returns.md": b"---\ntitle: Returns\ntags: [boots]\n---\n\n## Boots\n\nWithin thirty days.\n",
        "pages/hours.html": b"<title>Hours</title><nav>Home</nav><h1>Opening</h1><p>We open at nine.</p>",
        "pages/faq.csv": "id;question;answer;topic\nq1;Parking?;Behind the house.;Caf\u00e9\n".encode("cp1252"),
        "more/notes.txt": "Größe 42".encode("utf-16"),
        "more/items.jsonl": b'{"id": "item", "text": "A red hat."}\n',
        ".git/config": b"secret",
        ".env": b"secret",
        "logo.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00",
        "empty.txt": b"\n",
    }
    for name, content in files.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "shop"


def ids_in(client: Client) -> list[str]:
    return [each["id"] for each in client.ok("GET", "/v1/voice-sdk/index/shop/documents?limit=500")["documents"]]


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    """Return the documents of a file."""
    source = SourceFile(path, path.name, is_named=True)
    return [row for _, row in read_file(source, ReadOptions(**options), ReaderProcess())]


def test_a_folder_becomes_documents_with_stable_ids(client: Client, add: Add, folder: Path) -> None:
    done = add(folder)
    expected = ["item", "more/notes.txt", "pages/hours.html", "q1", "returns.md"]
    assert ids_in(client) == expected
    assert done.out == "5 documents sent; shop has 5 chunks, version 1\n"
    reasons = dict(line.removeprefix(f"skipped {folder}/").split(": ", 1) for line in done.err.splitlines())
    assert reasons == {".git/": "hidden", ".env": "hidden", "logo.png": "a binary file", "empty.txt": "empty"}

    assert add(folder).out == "5 documents sent; shop has 5 chunks, version 2\n"  # replaced
    assert ids_in(client) == expected


def test_what_left_the_folder_is_deleted_only_on_request(client: Client, add: Add, folder: Path) -> None:
    add(folder)
    (folder / "returns.md").unlink()
    (folder / "more/notes.txt").write_bytes(b"\x00\x01\x02 damaged")
    add(folder)
    assert "returns.md" in ids_in(client)

    shown = add(folder, "--delete-missing", "--dry-run").out
    assert "delete returns.md\n" in shown
    assert "notes.txt" not in shown  # it is there, and only unreadable today
    assert "returns.md" in ids_in(client)

    assert "3 documents sent, 1 deleted; shop has 4 chunks" in add(folder, "--delete-missing").out
    assert ids_in(client) == ["item", "more/notes.txt", "pages/hours.html", "q1"]


def test_a_dry_run_needs_no_cloud_and_sends_nothing(folder: Path) -> None:
    done = memoair("index", "add", "shop", folder, "--dry-run")
    assert "add returns.md (" in done.out
    assert done.out.endswith("5 documents to send; nothing was sent (--dry-run)\n")


def test_documents_come_from_standard_input(client: Client, add: Add) -> None:
    add("-", stdin=b'{"id": "a", "text": "One."}\n{"id": "b", "text": "Two."}\n')
    add("-", stdin=b"We open at nine.")
    assert ids_in(client) == ["a", "b", "stdin"]


def test_more_documents_than_one_request_may_have(client: Client, add: Add, tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"d{number:03}", "text": "word " * 1_000}) for number in range(250)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    assert add(tmp_path / "many.jsonl").out.startswith("250 documents sent; ")
    assert ids_in(client) == [f"d{number:03}" for number in range(250)]


def test_batches_are_within_the_limits() -> None:
    batches = list(split_batches([b"x" * 400_000] * 3 + [b"y"] * 250))
    assert [len(batch) for batch in batches] == [2, 100, 100, 51]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"id": "a", "text": "x"}\n{"id": 7, "text": "x"}\n', ":2: not a document"),
        ("a.jsonl", '{"id": "a", "text": "x"}\n{"id"\n', ":2: not a document"),
        ("a.csv", "id,note\n1,x\n", ":1: no column is called text; name one with --text-column (id, note)"),
        ("a.csv", "id,text\n1,x\n2,y,z\n", ":3: 3 columns; the first row names 2"),
        ("a.md", "---\ntitle: 'Bo\n---\ntext\n", ":2: invalid YAML front matter"),
        ("a.txt", "x" * 1_000_001, ": the document has 1,000,"),
        ("a.txt", " \n", ": empty"),
        ("a.bin", "\0\1", ": a binary file"),
    ],
)
def test_an_error_names_the_file_and_the_line_and_nothing_is_sent(
    client: Client, add: Add, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / "good.txt").write_text("Good.")
    (tmp_path / name).write_text(content)
    done = add(tmp_path / "good.txt", tmp_path / name, code=1)
    assert f"{tmp_path / name}{message}" in done.err
    assert client.ok("GET", "/v1/voice-sdk/index/list") == {"indexes": []}


def test_one_id_in_two_files_is_an_error(add: Add, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(name)
    assert "the id x.txt is in" in add(tmp_path / "a", tmp_path / "b", code=1).err


def test_a_missing_file_is_named(add: Add, tmp_path: Path) -> None:
    assert add(tmp_path / "none.md", code=1).err == f"{tmp_path / 'none.md'}: No such file or directory\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe: „42“", "utf-8-sig"),
        ("Größe 42 und eine kleine Größe", "utf-16-le"),
        ("Größe 42 und eine kleine Größe", "utf-16-be"),
        ("Größe 42", "utf-16"),
        ("Größe 42", "utf-32"),
        ("Größe: „42“, Café, 5 €", "cp1252"),
        ("Привет, мы открываемся в девять часов утра каждый день, кроме воскресенья.", "cp1251"),
        ("営業時間は午前九時からです。お問い合わせは電話でお願いします。", "shift_jis"),
        ("", "utf-8"),
    ],
)
def test_common_encodings_are_recognized(text: str, encoding: str) -> None:
    assert decode_text(f"{text}\r\nEnd".encode(encoding)) == f"{text}\nEnd"


def test_an_encoding_can_be_named() -> None:
    assert decode_text("Łódź".encode("cp1250"), "cp1250") == "Łódź"
    with pytest.raises(UnreadableFileError, match="not in the encoding utf-8"):
        decode_text(b"\xff\xff", "utf-8")


def test_front_matter_is_metadata_and_not_text(folder: Path) -> None:
    assert read(folder / "returns.md") == [
        {
            "id": "returns.md",
            "text": "\n## Boots\n\nWithin thirty days.\n",
            "metadata": {"title": "Returns", "tags": ["boots"], "format": "markdown"},
        }
    ]


@pytest.mark.parametrize(
    ("text", "metadata", "body"),
    [
        ("---\n---\nText", {}, "Text"),
        (
            "---\nday: 2026-03-02\nn: 3\nnested: {a: [1]}\n---\nText",
            {"day": "2026-03-02", "n": 3, "nested": {"a": [1]}},
            "Text",
        ),
        ("---\nText\n---\nMore", {}, "---\nText\n---\nMore"),
        ("Text\n---\na: 1\n---\n", {}, "Text\n---\na: 1\n---\n"),
        ("---\na: 1\nText", {}, "---\na: 1\nText"),
    ],
)
def test_front_matter_is_a_mapping_at_the_beginning(text: str, metadata: dict[str, Any], body: str) -> None:
    assert split_front_matter(text) == (metadata, body)


def test_html_becomes_text_with_headings() -> None:
    page = html_to_markdown(
        "<html><head><title>Shop &amp; more</title><style>p {}</style></head><body><nav><a>Home</a></nav>"
        "<h1>Returns</h1><p>Bring  them\n<b>back</b>.<br>Soon.<ul><li>Boots<li>Hats</ul><script>x < 1</script>"
        "<h2>Fees <i>now</i></h2><table><tr><th>What<th>Fee<tr><td>Boots<td>5 &euro;</table><p># not a heading"
    )
    assert page.title == "Shop & more"
    assert page.text == (
        "# Returns\n\nBring them back.\nSoon.\n\n- Boots\n- Hats\n\n## Fees now\n\nWhat | Fee\nBoots | 5 €\n\n"
        "\\# not a heading\n"
    )


def test_a_csv_row_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('name,text,details\nBoots,"Two lines,\nof text",Brown\n\nHats,Of felt,\n')
    assert read(path) == [
        {"id": "rows.csv#1", "text": "Two lines,\nof text", "metadata": {"name": "Boots", "details": "Brown"}},
        {"id": "rows.csv#2", "text": "Of felt", "metadata": {"name": "Hats"}},
    ]
    assert read(path, text_columns=("name", "text"), id_column="details")[0] == {
        "id": "Brown",
        "text": "Boots\nTwo lines,\nof text",
        "metadata": {},
    }
    with pytest.raises(DocumentFileError, match=r"rows\.csv:1: no column note; the columns are name, text, details"):
        read(path, text_columns=("note",))


def test_pdf_and_docx_files_are_added_and_damaged_ones_are_named(client: Client, add: Add, tmp_path: Path) -> None:
    (tmp_path / "hours.pdf").write_bytes(make_pdf([["We open at nine."]], title="Hours"))
    (tmp_path / "fees.docx").write_bytes(make_docx(lambda document: document.add_paragraph("No fees.")))
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.7")
    assert add(tmp_path).err == f"skipped {tmp_path}/torn.pdf: not a valid PDF file\n"
    assert ids_in(client) == ["fees.docx", "hours.pdf"]
    assert f"{tmp_path}/torn.pdf: not a valid PDF file" in add(tmp_path / "torn.pdf", code=1).err
