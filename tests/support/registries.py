"""Registries on this machine: Debian's `docker-registry` if it is available, and a local one that can require tokens.

Debian's is the reference implementation, packaged as one program without dependencies. `apt-get download` fetches it
without installing anything, and PyPI has no registry that is as real. If it is unavailable (no Debian, no network), the
tests that run against both skip it and run against the local one only. The local one has the same API, and does what
Debian's cannot: it requires a token as ghcr.io does, serves blobs from another server, and sends wrong content.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3

from support.artifacts import digest_of
from support.file_server import FileServer
from support.loopback_server import LoopbackHandler
from support.ports import free_port

# A password, and its hash for htpasswd.
PASSWORD = "correct horse"
_BCRYPT = "$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"


class LocalRegistry(FileServer):
    """A registry in memory. With ``requires_token``, it requires a token from its token server."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_token = False
        self.token = "an-anonymous-token"
        self.blob_store: str | None = None  # the server that serves the blobs
        self._manifests: dict[str, tuple[bytes, str]] = {}
        self._blobs: dict[str, bytes] = {}

    def serve(self, handler: LoopbackHandler) -> None:
        path = urlsplit(handler.path).path
        if path in self.responders or path in self.files:
            super().serve(handler)
        elif path == "/token":
            handler.reply(json.dumps({"token": self.token, "expires_in": 300}).encode())
        elif self.requires_token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.url}/token",service="own",scope="repository:acme/runtime:pull"'
            handler.reply(_errors("UNAUTHORIZED"), 401, WWW_Authenticate=challenge)
        elif handler.command in ("GET", "HEAD"):
            self._serve_content(handler, path)
        else:
            self._store_upload(handler, path)

    def _serve_content(self, handler: LoopbackHandler, path: str) -> None:
        name = path.rpartition("/")[2]
        if "/manifests/" in path and path in self._manifests:
            content, media_type = self._manifests[path]
            handler.reply(content, Content_Type=media_type, Docker_Content_Digest=digest_of(content))
        elif "/blobs/" in path and name in self._blobs:
            if self.blob_store is not None:
                handler.reply(b"", 307, Location=f"{self.blob_store}/{name}?signature=secret")
            else:
                handler.reply(self._blobs[name], Content_Type="application/octet-stream")
        else:
            handler.reply(_errors("MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN"), 404)

    def _store_upload(self, handler: LoopbackHandler, path: str) -> None:
        if handler.command == "POST":
            handler.reply(b"", 202, Location=f"{path}{os.urandom(8).hex()}")
        elif "/manifests/" in path:
            manifest = (handler.body, handler.headers["Content-Type"])
            folder = path.rpartition("/")[0]
            self._manifests[path] = self._manifests[f"{folder}/{digest_of(handler.body)}"] = manifest
            handler.reply(b"", 201)
        else:
            [digest] = parse_qs(urlsplit(handler.path).query)["digest"]
            if digest != digest_of(handler.body):
                handler.reply(_errors("DIGEST_INVALID"), 400)
                return
            self._blobs[digest] = handler.body
            handler.reply(b"", 201)


@contextmanager
def debian_registry(program: Path, folder: Path, *, requires_password: bool = False) -> Iterator[str]:
    """Run Debian's registry and yield its host and port. It may require the password of the user ``ada``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if requires_password:
        (folder / "passwords").write_text(f"ada:{_BCRYPT}\n")
        settings["auth"] = {"htpasswd": {"realm": "acme", "path": str(folder / "passwords")}}
    (folder / "config.yml").write_text(json.dumps(settings))  # JSON is valid YAML
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log, env={})
        try:
            deadline = time.monotonic() + 30
            while not _is_up(port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


@cache
def find_debian_registry(folder: Path) -> Path | str:
    """Return the program from this machine or from Debian's archive, or why it is unavailable."""
    for name in ("docker-registry", "/usr/bin/docker-registry"):
        if found := shutil.which(name):
            return Path(found)
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return "this machine does not run Debian"
    lists = ("-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}")
    steps = [["download", "docker-registry"], ["-qq", *lists, "update"], ["-qq", *lists, "download", "docker-registry"]]
    output = ""
    for step in steps:  # with the machine's package lists; else with fresh ones in a folder, which needs no root rights
        output = _run(["apt-get", *step], folder)
        if packages := list(folder.glob("docker-registry_*.deb")):
            output = _run(["dpkg", "-x", str(packages[0]), str(folder / "unpacked")], folder)
            program = folder / "unpacked" / "usr" / "bin" / "docker-registry"
            return program if program.is_file() else f"dpkg could not unpack it: {output}"
    return f"apt-get could not fetch it: {output}"


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr or done.stdout).strip()[-300:]


def _is_up(port: int) -> bool:
    with suppress(urllib3.exceptions.HTTPError), urllib3.PoolManager(retries=False, timeout=2) as http:
        return http.request("GET", f"http://127.0.0.1:{port}/v2/", headers={"Connection": "close"}).status in (200, 401)
    return False


def _errors(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
