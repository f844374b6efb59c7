"""Artifacts in a registry, over the HTTP API of the OCI distribution specification."""

import base64
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs
import requests

from memoair_voice_sync.runtime_store.downloader import Downloader
from memoair_voice_sync.runtime_store.errors import RuntimeStoreError, not_there
from memoair_voice_sync.runtime_store.reference import OciReference, Platform, is_loopback

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_ACCEPT = ", ".join((*_MANIFESTS, *_INDEXES))
_EMPTY = "application/vnd.oci.empty.v1+json"
_TITLE, _VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"
_MOST_MANIFEST_BYTES = 4 << 20  # what registries take, at most
_MOST_TOKEN_BYTES = 1 << 20
_MOST_LAYERS = 100
_FRESH_S = 45.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Docker's own registry has another name for itself, and no folder for what it keeps itself.
_DOCKER_HUB = "docker.io"


@attrs.frozen
class Layer:
    """One file of an artifact."""

    digest: str
    size: int
    title: str | None
    url: str


@attrs.frozen
class Artifact:
    """What a reference names for one platform. ``digest`` is that of what was named, ``manifest`` of what is taken."""

    digest: str
    manifest: str
    version: str | None
    layers: list[Layer]


class Registry:
    """One repository of a registry."""

    def __init__(self, web: Downloader, reference: OciReference) -> None:
        self._web = web
        self._reference = reference
        host, repository = reference.registry, reference.repository
        if host == _DOCKER_HUB:
            host, repository = "registry-1.docker.io", repository if "/" in repository else f"library/{repository}"
        scheme = "http" if is_loopback(urlsplit(f"//{host}").hostname) else "https"
        self._base = f"{scheme}://{host}/v2/{repository}"
        self._scope = f"repository:{repository}:pull"
        self._authorization: str | None = None
        self._challenge = ""
        self._answered_at = 0.0

    @property
    def authorization(self) -> str | None:
        """What the registry wants to see; nobody else may. A token is good for a minute, where nothing else is said."""
        if self._authorization is not None and time.monotonic() - self._answered_at > _FRESH_S:
            self._authorize()
        return self._authorization

    def artifact(self, target: Platform) -> Artifact:
        """Find what the reference names, for a platform."""
        reference = self._reference
        digest, manifest = self._manifest(reference.digest or reference.tag or "", reference.digest)
        chosen = digest
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            chosen = _choose(manifest, target, reference)
            _, manifest = self._manifest(chosen, chosen)
        layers = [self._layer(each) for each in _list(manifest, "layers") if each.get("mediaType") != _EMPTY]
        if not layers or len(layers) > _MOST_LAYERS:
            raise not_there(f"{reference.shown} holds {len(layers)} files; it is no runtime")
        version = _annotations(manifest).get(_VERSION)
        return Artifact(digest, chosen, version if isinstance(version, str) else None, layers)

    def _manifest(self, named: str, digest: str | None) -> tuple[str, dict[str, Any]]:
        """The digest of a manifest, and what it says. Its ``digest``, where that is known, is what it must have."""
        content, told = self._get(f"manifests/{named}")
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for expected in (digest, told):
            if expected and _DIGEST.fullmatch(expected) and expected != found:
                raise RuntimeStoreError(
                    f"{self._reference.shown}: a manifest came as {found}, which should be {expected}"
                )
        try:
            manifest = json.loads(content)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise RuntimeStoreError(f"{self._reference.shown}: the manifest can't be read")
        return found, manifest

    def _get(self, path: str) -> tuple[bytes, str | None]:
        url = f"{self._base}/{path}"
        also = () if self._authorization else (401,)
        with self._web.open(url, accept=_ACCEPT, authorization=self._authorization, also=also) as response:
            if response.status_code != 401:
                told = response.headers.get("Docker-Content-Digest")
                return self._web.body(response, _MOST_MANIFEST_BYTES), told
            self._challenge = response.headers.get("WWW-Authenticate", "")
        self._authorize()
        return self._get(path)

    def _authorize(self) -> None:
        self._authorization, self._answered_at = self._answer(self._challenge), time.monotonic()

    def _answer(self, challenge: str) -> str:
        """What to show to a registry that asks for it: a token, which anybody gets for what is public."""
        kind, _, rest = challenge.partition(" ")
        asked = requests.utils.parse_dict_header(rest)
        known = _credentials(self._reference.registry)
        basic = f"Basic {known}" if known else None
        registry = self._reference.registry
        if kind.lower() == "basic":
            if basic is None:
                raise not_there(f"{registry} wants a name and a password: `docker login {registry}` keeps them")
            return basic
        realm = asked.get("realm") or ""
        if kind.lower() != "bearer" or not realm:
            raise RuntimeStoreError(f"{registry} wants to be shown what we do not understand ({kind[:20]!r})")
        query = {name: value for name in ("service", "scope") if (value := asked.get(name))}
        query.setdefault("scope", self._scope)
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        if is_loopback(urlsplit(realm).hostname) and not self._base.startswith("http://"):
            raise RuntimeStoreError(f"{registry} sends us to this machine for a token")
        try:
            told = json.loads(self._web.read(url, _MOST_TOKEN_BYTES, authorization=basic))
            token = told.get("token") or told.get("access_token")
        except (ValueError, RecursionError, AttributeError):
            token = None
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            raise RuntimeStoreError(f"{registry}: the token can't be read")
        return f"Bearer {token}"

    def _layer(self, told: dict[str, Any]) -> Layer:
        digest, size = told.get("digest"), told.get("size")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise RuntimeStoreError(
                f"{self._reference.shown} has a file whose digest is not sha256: and 64 hexadecimal digits"
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise RuntimeStoreError(f"{self._reference.shown} has a file without a size")
        title = _annotations(told).get(_TITLE)
        return Layer(digest, size, title if isinstance(title, str) else None, f"{self._base}/blobs/{digest}")


def _choose(index: dict[str, Any], target: Platform, reference: OciReference) -> str:
    offered = []
    for each in _list(index, "manifests"):
        digest, told = each.get("digest"), each.get("platform")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            continue
        if not isinstance(told, dict):
            told = {"os": target.os, "architecture": target.architecture}  # it is for all
        wanted = (target.os, target.architecture)
        if (told.get("os"), told.get("architecture")) == wanted and told.get("variant") in (None, target.variant, "v8"):
            return digest
        if told.get("os") != "unknown":  # as attestations are marked
            offered.append(f"{told.get('os')}/{told.get('architecture')}"[:40])
    there = ", ".join(sorted(set(offered))) or "nothing"
    raise not_there(f"{reference.shown} is not there for {target}, but for {there}")


def _list(manifest: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = manifest.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _annotations(told: dict[str, Any]) -> dict[str, Any]:
    found = told.get("annotations")
    return found if isinstance(found, dict) else {}


def _credentials(registry: str) -> str | None:
    """What ``docker login`` has kept for a registry in its file; the programs that it may keep it with are not run."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path("~").expanduser() / ".docker")
    names = [registry, f"https://{registry}", f"https://{registry}/v2/"]
    if registry == _DOCKER_HUB:
        names.append("https://index.docker.io/v1/")
    try:
        kept = json.loads((folder / "config.json").read_bytes())["auths"]
        found = next(auth for name in names if (auth := kept.get(name, {}).get("auth")))
        base64.b64decode(found, validate=True)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, StopIteration, RuntimeError):
        return None
    return str(found)
