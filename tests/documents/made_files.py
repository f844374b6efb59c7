"""Files for the tests, made with the libraries that make such files: reportlab for PDF, python-docx for DOCX."""

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import docx
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas


def make_pdf(pages: list[list[str]], *, title: str = "", bookmarks: Mapping[int, list[tuple[str, int]]] = {}) -> bytes:
    """Return a PDF file with lines of text on each page, and bookmarks (title, level) by page."""
    output = io.BytesIO()
    canvas = Canvas(output, pagesize=A4, invariant=True)
    canvas.setTitle(title)
    for number, lines in enumerate(pages):
        for name, level in bookmarks.get(number, ()):
            canvas.bookmarkPage(name)
            canvas.addOutlineEntry(name, name, level)
        text = canvas.beginText(72, 760)
        for line in lines:
            text.textLine(line)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return output.getvalue()


def encrypt_pdf(content: bytes, password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(content)))
    writer.encrypt(password, algorithm="RC4-128", owner_password="owner")
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


def make_docx(fill: Callable[[Any], None]) -> bytes:
    """Return a DOCX file that a function has filled."""
    document = docx.Document()
    fill(document)
    output = io.BytesIO()
    document.save(output)
    return output.getvalue()


def change_docx(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return a DOCX file in which a function has changed the parts."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return output.getvalue()
