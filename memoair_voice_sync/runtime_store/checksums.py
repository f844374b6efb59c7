"""Releases: a file on a web server, and what it must be."""

import re
from urllib.parse import unquote, urlsplit

from memoair_voice_sync.runtime_store.downloader import Downloader
from memoair_voice_sync.runtime_store.errors import RuntimeStoreError
from memoair_voice_sync.runtime_store.reference import ReleaseUrl

_MOST_SUM_BYTES = 1 << 20
_SUM = re.compile(r"(?P<sum>[0-9A-Fa-f]{64})(?:[ \t]+\*?(?P<name>\S.*))?")
_BSD_SUM = re.compile(r"SHA256 ?\((?P<name>[^)]+)\) ?= ?(?P<sum>[0-9A-Fa-f]{64})")


def file_name(release: ReleaseUrl) -> str:
    """What the file is called."""
    return unquote(urlsplit(release.url).path.rpartition("/")[2])


def expected_sha256(web: Downloader, release: ReleaseUrl) -> str:
    """What the file's SHA-256 must be: as the reference says, or as a file beside it does."""
    if release.sha256 is not None:
        return release.sha256
    path, question, query = release.url.partition("?")
    beside = f"{path}.sha256{question}{query}"
    try:
        content = web.read(beside, _MOST_SUM_BYTES)
    except RuntimeStoreError as fault:
        if fault.code == "runtime.not_found":
            message = f"{fault.message}; add #sha256=... to the URL where the server has no such file"
            raise RuntimeStoreError(message, code=fault.code) from fault
        raise
    found = _sum_of(content.decode("utf-8", "replace"), file_name(release))
    if found is None:
        raise RuntimeStoreError(f"{path}.sha256 holds no SHA-256 of {file_name(release)}")
    return found


def _sum_of(content: str, name: str) -> str | None:
    """The sum of a file in a list of sums; one that stands alone needs no name."""
    lines = [line.strip() for line in content.lstrip("\ufeff").splitlines() if line.strip()]
    found = [match for line in lines if (match := _SUM.fullmatch(line) or _BSD_SUM.fullmatch(line))]
    named = [each for each in found if each["name"] and each["name"].replace("\\", "/").rpartition("/")[2] == name]
    if not named and len(found) == len(lines) == 1 and not found[0]["name"]:
        named = found
    return named[0]["sum"].lower() if len({each["sum"].lower() for each in named}) == 1 else None
