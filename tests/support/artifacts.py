"""Runtimes to pull: programs, archives, manifests, and a client that pushes them to a registry."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import urllib3

# Starts the real runtime.
PROGRAM = f'#!/bin/sh\nexec "{sys.executable}" -m memoair_runtime "$@"\n'.encode()

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAR_GZ = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}"}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def member(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return an entry of a tar archive, with attributes of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o755
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def tar_gz_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return gzip.compress(tar_of(*members), 6, mtime=0)


def zip_of(files: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0o100755) << 16
            archive.writestr(info, content)
    return out.getvalue()


def runtime_archive(program: bytes = PROGRAM, padding: int = 0) -> bytes:
    """Return a typical release: a folder with a program, a license, a library with a link to it, and padding."""
    return tar_gz_of(
        member("memoair-runtime/", type=tarfile.DIRTYPE),
        member("memoair-runtime/LICENSE", b"Apache-2.0\n", mode=0o644),
        member("memoair-runtime/lib/libx.so.1", b"\x7fELF library"),
        member("memoair-runtime/lib/libx.so", type=tarfile.SYMTYPE, linkname="libx.so.1"),
        member("memoair-runtime/bin/voice-runtime", program),
        *([member("memoair-runtime/ballast", os.urandom(padding))] if padding else []),
    )


def descriptor_of(content: bytes, title: str | None = None, media_type: str = TAR_GZ) -> dict[str, Any]:
    """Return the descriptor of a file."""
    descriptor: dict[str, Any] = {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
    return {**descriptor, "annotations": {"org.opencontainers.image.title": title}} if title else descriptor


def manifest_of(layers: Iterable[dict[str, Any]], version: str | None = None) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.memoair.runtime",
            "config": {**EMPTY, "size": 2},
            "layers": list(layers),
            **({"annotations": {"org.opencontainers.image.version": version}} if version else {}),
        }
    ).encode()


def index_of(platforms: Sequence[tuple[str, str, bytes]]) -> bytes:
    """Return an index of manifests by operating system and architecture."""
    manifests = [
        {
            "mediaType": MANIFEST,
            "digest": digest_of(manifest),
            "size": len(manifest),
            "platform": {"os": system, "architecture": architecture},
        }
        for system, architecture, manifest in platforms
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()


class RegistryClient:
    """Pushes artifacts to a repository of a registry, by the API of the OCI specification."""

    def __init__(self, registry: str, repository: str = "acme/runtime", authorization: str | None = None) -> None:
        self._base_url = f"http://{registry}/v2/{repository}"
        self._headers = {"Authorization": authorization} if authorization else {}

    def push(self, tag: str, *files: tuple[bytes, str | None], version: str | None = None) -> str:
        """Push an artifact with a tag and return its digest."""
        return self.put_manifest(tag, self.push_untagged(*files, version=version), MANIFEST)

    def push_untagged(self, *files: tuple[bytes, str | None], version: str | None = None) -> bytes:
        """Push an artifact without a tag and return its manifest."""
        self.put_blob(b"{}")
        for content, _ in files:
            self.put_blob(content)
        manifest = manifest_of((descriptor_of(content, title) for content, title in files), version)
        self.put_manifest(digest_of(manifest), manifest, MANIFEST)
        return manifest

    def put_manifest(self, name: str, manifest: bytes, media_type: str) -> str:
        """Put a manifest or an index under a tag or digest, and return its digest."""
        self._request("PUT", f"{self._base_url}/manifests/{name}", manifest, media_type)
        return digest_of(manifest)

    def put_blob(self, content: bytes) -> None:
        upload = self._request("POST", f"{self._base_url}/blobs/uploads/", b"", "application/octet-stream")
        location = upload.headers["Location"]
        url = location if "://" in location else self._base_url.partition("/v2/")[0] + location
        separator = "&" if "?" in url else "?"
        self._request("PUT", f"{url}{separator}digest={digest_of(content)}", content, "application/octet-stream")

    def _request(self, method: str, url: str, body: bytes, media_type: str) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(retries=False, timeout=30) as http:
            headers = {**self._headers, "Content-Type": media_type, "Connection": "close"}
            reply = http.request(method, url, body=body, headers=headers)
        assert 200 <= reply.status < 300, (method, url, reply.status, reply.data)
        return reply
