"""The expected checksums of release files on web servers."""

import re
from urllib.parse import unquote, urlsplit

from memoair_runtime_store.downloader import Downloader
from memoair_runtime_store.errors import RuntimeStoreError
from memoair_runtime_store.reference import ReleaseUrl

_MAX_CHECKSUM_FILE_BYTES = 1 << 20
_CHECKSUM_LINE = re.compile(r"(?P<sum>[0-9A-Fa-f]{64})(?:[ \t]+\*?(?P<name>\S.*))?")
_BSD_CHECKSUM_LINE = re.compile(r"SHA256 ?\((?P<name>[^)]+)\) ?= ?(?P<sum>[0-9A-Fa-f]{64})")


def file_name(release: ReleaseUrl) -> str:
    """Return the file name of a release."""
    return unquote(urlsplit(release.url).path.rpartition("/")[2])


def find_expected_sha256(downloader: Downloader, release: ReleaseUrl) -> str:
    """Return the expected SHA-256 of a release, from its URL or from the ``.sha256`` file beside it."""
    if release.sha256 is not None:
        return release.sha256
    path, separator, query = release.url.partition("?")
    checksum_url = f"{path}.sha256{separator}{query}"
    try:
        content = downloader.read(checksum_url, _MAX_CHECKSUM_FILE_BYTES)
    except RuntimeStoreError as error:
        if error.code == "runtime.not_found":
            message = f"{error.message}; if the server has no checksum file, add #sha256=... to the URL"
            raise RuntimeStoreError(message, code=error.code) from error
        raise
    sha256 = _find_checksum(content.decode("utf-8", "replace"), file_name(release))
    if sha256 is None:
        raise RuntimeStoreError(f"{path}.sha256 has no SHA-256 for {file_name(release)}")
    return sha256


def _find_checksum(content: str, name: str) -> str | None:
    """Return the checksum of a file from a checksum list. A checksum that stands alone needs no file name."""
    lines = [line.strip() for line in content.lstrip("\ufeff").splitlines() if line.strip()]
    entries = [
        match for line in lines if (match := _CHECKSUM_LINE.fullmatch(line) or _BSD_CHECKSUM_LINE.fullmatch(line))
    ]
    matching = [
        entry for entry in entries if entry["name"] and entry["name"].replace("\\", "/").rpartition("/")[2] == name
    ]
    if not matching and len(entries) == len(lines) == 1 and not entries[0]["name"]:
        matching = entries
    return matching[0]["sum"].lower() if len({entry["sum"].lower() for entry in matching}) == 1 else None
