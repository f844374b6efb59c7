r"""From an identifier to the name of its folder, and back.

An identifier is any text. Its folder's name must be safe on every file system, two identifiers must never share one
(also where ``A`` and ``a`` are the same file, and where Unicode is normalised), and who looks at the disk must be able
to read the identifier back. So: lower-case ASCII letters, digits, ``_`` and ``-`` stand for themselves, every other
byte of the UTF-8 form is ``%XX``; dots are never left as they are, so that no name is ``..`` and none meets a file of
ours, all of which have a dot. A name that would be too long ends in ``~`` and the SHA-256 of the identifier, which then
stands in a file in the folder (`ID_FILE`).
"""

import hashlib
from pathlib import Path
from urllib.parse import unquote

ID_FILE = "id.txt"

# Three such names and the file below them stay under the 260 characters that Windows grants a path.
_MAX_CHARS = 80
_DIGEST_CHARS = 64
_SAFE_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))]
)


def folder_name(identifier: str) -> str:
    """Return the folder name of a non-empty identifier."""
    if not identifier:
        raise ValueError("an identifier is empty")
    raw = identifier.encode()
    name = "".join(chr(byte) if byte in _SAFE_BYTES else f"%{byte:02X}" for byte in raw)
    if name in _WINDOWS_DEVICES or name.startswith("-"):
        name = f"%{raw[0]:02X}{name[1:]}"
    if len(name) <= _MAX_CHARS:
        return name
    return f"{name[: _MAX_CHARS - _DIGEST_CHARS - 1]}~{hashlib.sha256(raw).hexdigest()}"


def is_shortened(name: str) -> bool:
    """Tell whether the identifier can't be read from the name alone and stands in the folder's `ID_FILE`."""
    return "~" in name


def read_identifier(folder: Path) -> str | None:
    """Read back the identifier that a folder was named for; None if the folder is none of ours."""
    if is_shortened(folder.name):
        try:
            identifier = (folder / ID_FILE).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return None
    else:
        try:
            identifier = unquote(folder.name, errors="strict")
        except UnicodeDecodeError:
            return None
    return identifier if identifier and folder_name(identifier) == folder.name else None
