"""From DOCX to Markdown: headings by their styles, lists, and tables as rows of text."""

import io
import re
import zipfile
from xml.etree.ElementTree import ParseError, fromstring

from memoair_documents.errors import UnreadableFileError
from memoair_documents.html import html_to_markdown
from memoair_documents.markdown import TitledText
from memoair_protocol.installing import install_command

MAX_UNPACKED_BYTES = 256 << 20
_MAX_ENTRIES = 10_000
_OLE_MARK = b"\xd0\xcf\x11\xe0"  # of encrypted DOCX files, and of the format before DOCX
_DOCUMENT_TYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_TITLE_TAG = "{http://purl.org/dc/elements/1.1/}title"
_STYLES = """
p[style-name='Title'] => title:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='heading 7'] => h6:fresh
p[style-name='heading 8'] => h6:fresh
p[style-name='heading 9'] => h6:fresh
"""


def docx_to_markdown(content: bytes) -> TitledText:
    """Return the text of a DOCX file, with its headings as headings in Markdown. Images and comments are left out.

    Args:
        content: The bytes of the file. A hostile file can take much time and memory: read files of strangers with
            `memoair_documents.reader_process`.

    Raises:
        UnreadableFileError: If the file is encrypted, damaged, or unpacks to more than a document can have.
    """
    try:
        import mammoth
    except ImportError:
        raise UnreadableFileError(f"DOCX files need: {install_command('documents')}") from None
    if content.startswith(_OLE_MARK):
        raise UnreadableFileError("encrypted, or in the format before DOCX: save it again without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_archive(archive)
            title = _read_title(archive)
        page = mammoth.convert_to_html(
            io.BytesIO(content),
            style_map=_STYLES,
            include_embedded_style_map=False,
            external_file_access=False,
            convert_image=mammoth.images.img_element(lambda _: {}),  # otherwise images become text in base 64
        )
    except (UnreadableFileError, MemoryError):
        raise
    except RecursionError:
        raise UnreadableFileError("nested too deeply") from None
    except Exception:  # noqa: BLE001 - damage of all kinds raises errors of all kinds
        raise UnreadableFileError("not a valid DOCX file") from None
    text = html_to_markdown(page.value)
    return TitledText(text.title or title, text.text)


def _check_archive(archive: zipfile.ZipFile) -> None:
    """Raise unless an archive unpacks to a bounded size, and its XML to nothing but itself."""
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)  # what is read of an entry is cut at this size
    if unpacked > MAX_UNPACKED_BYTES or len(entries) > _MAX_ENTRIES:
        raise UnreadableFileError(f"unpacks to more than {MAX_UNPACKED_BYTES >> 20} MB or {_MAX_ENTRIES:,} entries")
    for entry in entries:
        if entry.flag_bits & 1:
            raise UnreadableFileError("encrypted: save it again without a password")
        is_xml = entry.filename.endswith((".xml", ".rels"))
        # UTF-16 has zero bytes between the letters.
        if is_xml and _DOCUMENT_TYPE.search(archive.read(entry).replace(b"\0", b"")):
            raise UnreadableFileError("it declares XML entities, which no word processor does")


def _read_title(archive: zipfile.ZipFile) -> str:
    try:
        properties = fromstring(archive.read("docProps/core.xml"))  # noqa: S314 - entities are refused above
    except (KeyError, ParseError):
        return ""
    return " ".join((properties.findtext(_TITLE_TAG) or "").split())
