"""Artifacts in a registry, fetched by the HTTP API of the OCI distribution specification."""

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

from memoair_protocol.addresses import is_loopback
from memoair_protocol.input_files import read_regular_file
from memoair_runtime_store.downloader import Downloader, origin_of
from memoair_runtime_store.errors import RuntimeStoreError, not_found
from memoair_runtime_store.reference import OciReference, Platform

_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_ACCEPT = ", ".join((*_MANIFEST_TYPES, *_INDEX_TYPES))
_EMPTY_LAYER_TYPE = "application/vnd.oci.empty.v1+json"
_TITLE_ANNOTATION, _VERSION_ANNOTATION = "org.opencontainers.image.title", "org.opencontainers.image.version"
_MAX_MANIFEST_BYTES = 4 << 20  # the limit of registries themselves
_MAX_TOKEN_BYTES = 1 << 20
_MAX_LAYERS = 100
_TOKEN_TTL_S = 45.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Docker Hub's API has another host name, and its own images are in the repository `library`.
_DOCKER_HUB = "docker.io"
# The token servers of registries that have them elsewhere. Other registries answer for their tokens themselves.
_TOKEN_SERVERS = {
    "registry-1.docker.io": "auth.docker.io",
    "registry.gitlab.com": "gitlab.com",
    "registry.digitalocean.com": "api.digitalocean.com",
}
SERVER_VARIABLE = "MEMOAIR_RUNTIME_TOKEN_SERVER"


@attrs.frozen
class Layer:
    """A file of an artifact.

    Attributes:
        digest: The digest of the file.
        size: Its size in bytes.
        title: Its name, if the manifest gives one.
        url: Where to download it.
    """

    digest: str
    size: int
    title: str | None
    url: str


@attrs.frozen
class Artifact:
    """The artifact that a reference names for one platform.

    Attributes:
        digest: The digest of what the reference names: of a manifest, or of an index of manifests.
        manifest_digest: The digest of the manifest for the platform.
        version: The version, if the manifest gives one.
        layers: The files of the artifact.
    """

    digest: str
    manifest_digest: str
    version: str | None
    layers: list[Layer]


class Registry:
    """A repository of a registry. Not thread-safe.

    Args:
        downloader: The connections to use.
        reference: The artifact, with its registry and repository.
    """

    def __init__(self, downloader: Downloader, reference: OciReference) -> None:
        self._downloader = downloader
        self._reference = reference
        host, repository = reference.registry, reference.repository
        if host == _DOCKER_HUB:
            host, repository = "registry-1.docker.io", repository if "/" in repository else f"library/{repository}"
        scheme = "http" if is_loopback(urlsplit(f"//{host}").hostname) else "https"
        self._base_url = f"{scheme}://{host}/v2/{repository}"
        self._scope = f"repository:{repository}:pull"
        self._authorization: str | None = None
        self._challenge = ""
        self._authorized_at = 0.0

    @property
    def authorization(self) -> str | None:
        """The Authorization header of this registry. Tokens are renewed early: their default lifetime is a minute."""
        if self._authorization is not None and time.monotonic() - self._authorized_at > _TOKEN_TTL_S:
            self._authorize()
        return self._authorization

    def find_artifact(self, platform: Platform) -> Artifact:
        """Return the artifact that the reference names for a platform.

        Raises:
            RuntimeStoreError: The artifact does not exist, is not built for the platform, or is invalid.
        """
        reference = self._reference
        digest, manifest = self._fetch_manifest(reference.digest or reference.tag or "", reference.digest)
        manifest_digest = digest
        if manifest.get("mediaType") in _INDEX_TYPES or "manifests" in manifest:
            manifest_digest = _select_manifest(manifest, platform, reference)
            _, manifest = self._fetch_manifest(manifest_digest, manifest_digest)
        layers = [
            self._parse_layer(descriptor)
            for descriptor in _list_objects(manifest, "layers")
            if descriptor.get("mediaType") != _EMPTY_LAYER_TYPE
        ]
        if not layers or len(layers) > _MAX_LAYERS:
            raise not_found(f"{reference.display_name} has {len(layers)} files and is not a runtime")
        version = _annotations(manifest).get(_VERSION_ANNOTATION)
        return Artifact(digest, manifest_digest, version if isinstance(version, str) else None, layers)

    def _fetch_manifest(self, reference: str, pinned_digest: str | None) -> tuple[str, dict[str, Any]]:
        """Return the digest and the content of a manifest. Compare the digest with the pinned one, if there is one."""
        content, header_digest = self._get(f"manifests/{reference}")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for expected in (pinned_digest, header_digest):
            if expected and _DIGEST.fullmatch(expected) and expected != digest:
                raise RuntimeStoreError(
                    f"{self._reference.display_name}: a manifest has the digest {digest}, expected {expected}"
                )
        try:
            manifest = json.loads(content)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise RuntimeStoreError(f"{self._reference.display_name}: the manifest is not a JSON object")
        return digest, manifest

    def _get(self, path: str) -> tuple[bytes, str | None]:
        url = f"{self._base_url}/{path}"
        allowed_statuses = () if self._authorization else (401,)
        with self._downloader.open(
            url, accept=_ACCEPT, authorization=self._authorization, allowed_statuses=allowed_statuses
        ) as response:
            if response.status_code != 401:
                digest = response.headers.get("Docker-Content-Digest")
                return self._downloader.read_body(response, _MAX_MANIFEST_BYTES), digest
            self._challenge = response.headers.get("WWW-Authenticate", "")
        self._authorize()
        return self._get(path)

    def _authorize(self) -> None:
        self._authorization, self._authorized_at = self._answer_challenge(self._challenge), time.monotonic()

    def _answer_challenge(self, challenge: str) -> str:
        """Return the Authorization header for a challenge. For public repositories, tokens need no credentials."""
        scheme, _, rest = challenge.partition(" ")
        parameters = requests.utils.parse_dict_header(rest)
        registry = self._reference.registry
        credentials = _docker_credentials(registry)
        basic = f"Basic {credentials}" if credentials else None
        if scheme.lower() == "basic":
            if basic is None:
                raise not_found(f"{registry} requires a login: run `docker login {registry}`")
            return basic
        realm = parameters.get("realm") or ""
        if scheme.lower() != "bearer" or not realm:
            raise RuntimeStoreError(f"{registry} requires an unsupported authentication scheme ({scheme[:20]!r})")
        query = {name: value for name in ("service", "scope") if (value := parameters.get(name))}
        query.setdefault("scope", self._scope)
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        if is_loopback(urlsplit(realm).hostname) and not self._base_url.startswith("http://"):
            raise RuntimeStoreError(f"{registry} points to this machine for its tokens")
        if basic is not None:
            self._check_token_server(realm)
        try:
            reply = json.loads(self._downloader.read(url, _MAX_TOKEN_BYTES, authorization=basic))
            token = reply.get("token") or reply.get("access_token")
        except (ValueError, RecursionError, AttributeError):
            token = None
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            raise RuntimeStoreError(f"{registry} returned an invalid token")
        return f"Bearer {token}"

    def _check_token_server(self, realm: str) -> None:
        """Raise RuntimeStoreError unless the login of the registry may be sent to the token server that it names.

        Otherwise a changed challenge could have name and password sent anywhere. An anonymous request has neither.
        """
        server, own = urlsplit(realm), urlsplit(self._base_url).netloc.lower()
        known = {own, _TOKEN_SERVERS.get(own, ""), os.environ.get(SERVER_VARIABLE, "").strip().lower()}
        is_secure = server.scheme.lower() == "https" or is_loopback(server.hostname)
        if is_secure and server.netloc.lower().removesuffix(":443") in {
            host.removesuffix(":443") for host in known if host
        }:
            return
        registry, shown = self._reference.registry, origin_of(realm)
        raise RuntimeStoreError(
            f"{registry} wants its login to be sent to {shown}, which is not known as its token server; if it is,"
            f" and uses https, set {SERVER_VARIABLE}={server.netloc.rpartition('@')[2][:100]}"
        )

    def _parse_layer(self, descriptor: dict[str, Any]) -> Layer:
        digest, size = descriptor.get("digest"), descriptor.get("size")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise RuntimeStoreError(
                f"{self._reference.display_name} has a file with an invalid digest:"
                " expected sha256: and 64 hexadecimal digits"
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise RuntimeStoreError(f"{self._reference.display_name} has a file without a size")
        title = _annotations(descriptor).get(_TITLE_ANNOTATION)
        return Layer(digest, size, title if isinstance(title, str) else None, f"{self._base_url}/blobs/{digest}")


def _select_manifest(index: dict[str, Any], platform: Platform, reference: OciReference) -> str:
    offered = []
    for descriptor in _list_objects(index, "manifests"):
        digest, descriptor_platform = descriptor.get("digest"), descriptor.get("platform")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            continue
        if not isinstance(descriptor_platform, dict):
            descriptor_platform = {"os": platform.os, "architecture": platform.architecture}  # built for any platform
        wanted = (platform.os, platform.architecture)
        if (
            descriptor_platform.get("os"),
            descriptor_platform.get("architecture"),
        ) == wanted and descriptor_platform.get("variant") in (None, platform.variant, "v8"):
            return digest
        if descriptor_platform.get("os") != "unknown":  # the mark of attestations
            offered.append(f"{descriptor_platform.get('os')}/{descriptor_platform.get('architecture')}"[:40])
    available = ", ".join(sorted(set(offered))) or "nothing"
    raise not_found(f"{reference.display_name} is not available for {platform}, only for {available}")


def _list_objects(manifest: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = manifest.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _annotations(descriptor: dict[str, Any]) -> dict[str, Any]:
    annotations = descriptor.get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _docker_credentials(registry: str) -> str | None:
    """Return what ``docker login`` saved for a registry in its file. Credential helpers are not run."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path("~").expanduser() / ".docker")
    names = [registry, f"https://{registry}", f"https://{registry}/v2/"]
    if registry == _DOCKER_HUB:
        names.append("https://index.docker.io/v1/")
    try:
        auths = json.loads(read_regular_file(folder / "config.json"))["auths"]
        credentials = next(auth for name in names if (auth := auths.get(name, {}).get("auth")))
        base64.b64decode(credentials, validate=True)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, StopIteration, RuntimeError):
        return None
    return str(credentials)
