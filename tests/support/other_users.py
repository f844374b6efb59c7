"""Files of another user of the machine, as far as the tests may make them."""

import os
from pathlib import Path

import pytest

OTHER_UID = 65534

needs_owners = pytest.mark.skipif(os.name == "nt", reason="Windows has neither owners nor modes of this kind")
needs_superuser = pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0, reason="only the superuser can make files of another user"
)


def give_away(path: Path, mode: int | None = None) -> Path:
    """Make a file or folder one of another user; return it."""
    os.chown(path, OTHER_UID, OTHER_UID, follow_symlinks=False)
    if mode is not None:
        path.chmod(mode)
    return path


def make_shared_root(folder: Path) -> Path:
    """Make a storage root in which every user may create files, as in ``/tmp``; return it."""
    root = folder / "root"
    root.mkdir()
    root.chmod(0o1777)
    return root
