"""Encode identifiers as folder names, and decode them.

An identifier is any text. Its folder name must be safe on every file system, and two identifiers must never share a
name, even if the file system ignores case (``A`` and ``a``) or normalizes Unicode. A person who looks at the disk must
be able to read the identifier. So lower-case ASCII letters, digits, ``_`` and ``-`` stand for themselves, and every
other byte of the UTF-8 form becomes ``%XX``. Dots are always escaped: no name is ``..``, and none collides with our own
files, all of which have a dot in their names. A name that would be too long is cut and ends in ``~`` and the SHA-256 of
the identifier, which is then stored in a file in the folder (`ID_FILE`).
"""

import hashlib
from pathlib import Path
from urllib.parse import unquote

from memoair_protocol.private_files import read_private_file
from memoair_protocol.starvation import raise_if_starved

ID_FILE = "id.txt"

# A path with three such names and a file below them stays within the 260 characters that Windows allows.
_MAX_CHARS = 80
_DIGEST_CHARS = 64
_SAFE_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))]
)


def folder_name(identifier: str) -> str:
    """Return the folder name for an identifier.

    Args:
        identifier: Any text.

    Raises:
        ValueError: The identifier is empty, or cannot be encoded in UTF-8.

    Example:
        >>> folder_name("Dana/42")
        '%44ana%2F42'
    """
    if not identifier:
        raise ValueError("identifier is empty")
    raw = identifier.encode()
    name = "".join(chr(byte) if byte in _SAFE_BYTES else f"%{byte:02X}" for byte in raw)
    if name in _WINDOWS_DEVICES or name.startswith("-"):
        name = f"%{raw[0]:02X}{name[1:]}"
    if len(name) <= _MAX_CHARS:
        return name
    return f"{name[: _MAX_CHARS - _DIGEST_CHARS - 1]}~{hashlib.sha256(raw).hexdigest()}"


def is_shortened(name: str) -> bool:
    """Return whether the identifier is stored in the folder's `ID_FILE`, because the name does not hold all of it."""
    return "~" in name


def read_identifier(folder: Path) -> str | None:
    """Return the identifier that a folder was named for.

    Args:
        folder: A folder; it exists if its name is shortened.

    Returns:
        The identifier, or None if the folder was not named by `folder_name`.

    Raises:
        OSError: The file with it cannot be opened for want of descriptors or memory.
    """
    if is_shortened(folder.name):
        try:
            identifier = read_private_file(folder / ID_FILE).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise_if_starved(error)
            return None
    else:
        try:
            identifier = unquote(folder.name, errors="strict")
        except UnicodeDecodeError:
            return None
    return identifier if identifier and folder_name(identifier) == folder.name else None
