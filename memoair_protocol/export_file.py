"""Files of exports: complete or not there, readable by this operating system user only, never replaced by mistake."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

_END = b"}\n"


def write_export_file(path: Path, blocks: Iterable[bytes], *, overwrite: bool) -> int:
    """Write a JSON document to a file.

    Args:
        path: The file.
        blocks: The document, in parts.
        overwrite: Whether to replace an existing file.

    Returns:
        The size in bytes.

    Raises:
        FileExistsError: There is a file, and it is not to be replaced.
        ValueError: The document is not complete.
        OSError: The file cannot be written.
    """
    if not overwrite and path.exists():
        raise FileExistsError(f"{path} exists")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        size, tail = 0, b""
        with os.fdopen(fd, "wb") as file:
            for block in blocks:
                file.write(block)
                size, tail = size + len(block), (tail + block)[-len(_END) :]
            file.flush()
            os.fsync(file.fileno())
        if tail != _END:
            raise ValueError("the document is not complete")
        if overwrite or os.name == "nt":
            temporary.replace(path) if overwrite else temporary.rename(path)  # on Windows, renaming replaces nothing
        else:
            os.link(temporary, path)  # fails if another process has created the file since
    finally:
        temporary.unlink(missing_ok=True)
    return size
