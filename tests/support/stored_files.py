"""Read what processes have stored, while they write and remove files."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def read_stored_files(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the files below a folder with their content. What is removed by then is left out."""
    for folder, _, names in os.walk(root):  # unlike `Path.rglob`, it survives the end of a folder
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()
