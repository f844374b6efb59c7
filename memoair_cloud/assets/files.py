"""Serve the assets under addresses with their hashes, so that browsers may keep them forever."""

import hashlib
import mimetypes
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Response

from memoair_cloud.errors import NotFoundError

_FOLDER = Path(__file__).parent
_SUFFIXES = frozenset({".css", ".js"})
_DIGEST_CHARS = 16
_CACHE_CONTROL = "public, max-age=31536000, immutable"

router = APIRouter(prefix="/assets", include_in_schema=False)


@lru_cache(maxsize=1)
def _load() -> dict[str, tuple[str, bytes]]:
    """Return the digest and the content of each asset, by its path in the folder."""
    files = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _SUFFIXES)
    contents = {path.relative_to(_FOLDER).as_posix(): path.read_bytes() for path in files}
    return {name: (hashlib.sha256(content).hexdigest()[:_DIGEST_CHARS], content) for name, content in contents.items()}


def asset_url(name: str) -> str:
    """Return the address of an asset.

    Args:
        name: Its path in the folder of assets, for example ``vendored/htmx.org/htmx.min.js``.
    """
    return f"/assets/{_load()[name][0]}/{name}"


@router.get("/{digest}/{name:path}")
def get_asset(digest: str, name: str) -> Response:
    """Return an asset. The address of another version of it is not found."""
    known_digest, content = _load().get(name, ("", b""))
    if not known_digest or digest != known_digest:
        raise NotFoundError("unknown file")
    media_type = mimetypes.types_map.get(Path(name).suffix, "application/octet-stream")
    headers = {"Cache-Control": _CACHE_CONTROL, "X-Content-Type-Options": "nosniff"}
    return Response(content, HTTPStatus.OK, headers, media_type)
