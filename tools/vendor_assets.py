"""Fetch the style kit and scripts of the dashboard and of ``/docs`` from npm, at pinned versions.

    python tools/vendor_assets.py

It writes the files to ``memoair_cloud/assets/vendored``, each package with its license, and their hashes to
``memoair_cloud/assets/vendored.json``, with which a test compares them. It needs ``npm``, which verifies what it
downloads against the hashes of the registry.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ASSETS = Path(__file__).parents[1] / "memoair_cloud" / "assets"


class Package(NamedTuple):
    """A package of npm, and the files to take from it."""

    name: str
    version: str
    files: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name of its folder among the vendored files."""
        return self.name.rpartition("/")[2]


PACKAGES = (
    Package("@picocss/pico", "2.1.1", ("css/pico.min.css", "LICENSE.md")),
    Package("htmx.org", "2.0.7", ("dist/htmx.min.js", "LICENSE")),
    Package("uplot", "1.6.32", ("dist/uPlot.iife.min.js", "dist/uPlot.min.css", "LICENSE")),
    Package(
        "swagger-ui-dist",
        "5.35.0",
        ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-bundle.js.LICENSE.txt", "LICENSE", "NOTICE"),
    ),
)


def main() -> None:
    """Replace all vendored files."""
    shutil.rmtree(ASSETS / "vendored", ignore_errors=True)
    records = [fetch(package) for package in PACKAGES]
    (ASSETS / "vendored.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def fetch(package: Package) -> dict[str, Any]:
    """Copy the files of a package to its folder, and return its record."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{package.name}@{package.version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - the arguments are constants above
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            metadata = json.loads(_read(archive, "package.json"))
            hashes = {}
            for name in package.files:
                content = _read(archive, name)
                path = ASSETS / "vendored" / package.folder / Path(name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                hashes[path.relative_to(ASSETS).as_posix()] = hashlib.sha256(content).hexdigest()
    print(f"{package.name} {package.version}: {len(hashes)} files", file=sys.stderr)
    return {
        "package": package.name,
        "version": package.version,
        "license": metadata["license"],
        "sha256": hashes,
    }


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(f"package/{name}")
    if member is None:
        raise FileNotFoundError(name)
    return member.read()


if __name__ == "__main__":
    main()
