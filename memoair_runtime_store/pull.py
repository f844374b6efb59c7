"""Pull a runtime: resolve a reference to a program in the cache, or raise an error that says what to do."""

import logging
import re
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from memoair_protocol.errors import MemoAirVoiceMemoryError
from memoair_runtime_store.archive import Unpacker
from memoair_runtime_store.cache import CachedRuntime
from memoair_runtime_store.cache_writer import CacheWriter
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.downloader import Downloader, ProgressCallback
from memoair_runtime_store.errors import RuntimeStoreError, to_public_error
from memoair_runtime_store.reference import OciReference, Platform, Reference, ReleaseUrl, current_platform
from memoair_runtime_store.registry import Registry

log = logging.getLogger("memoair_voice")
MAX_DOWNLOAD_BYTES = 1 << 30
# A pull fails only after this many broken connections; these are the delays in between.
_RETRY_DELAYS_S = (0.5, 2.0)
_MAX_CHECKSUM_FILE_BYTES = 1 << 20
_CHECKSUM_LINE = re.compile(r"(?P<sum>[0-9A-Fa-f]{64})(?:[ \t]+\*?(?P<name>\S.*))?")
_BSD_CHECKSUM_LINE = re.compile(r"SHA256 ?\((?P<name>[^)]+)\) ?= ?(?P<sum>[0-9A-Fa-f]{64})")


def pull(
    reference: Reference,
    cache_dir: Path,
    cancel_token: CancelToken,
    progress: ProgressCallback = lambda *_: None,
    *,
    refresh: bool = False,
) -> CachedRuntime:
    """Return a runtime from the cache, or pull it. One process pulls at a time, others wait for it.

    Args:
        reference: The runtime to pull.
        cache_dir: The folder of the cache.
        cancel_token: Cancels the pull from another thread.
        progress: Called during the download with the bytes received, and the total if it is known.
        refresh: Whether to resolve the reference again, although it is cached. A tag may have moved since.

    Returns:
        The runtime in the cache.

    Raises:
        MemoAirVoiceMemoryError: With ``runtime.not_found`` if the runtime does not exist or is not accessible, with
            ``runtime.start_failed`` if it cannot be fetched now or does not match its digest.
        PullCancelledError: The pull was cancelled.
    """
    try:
        runtime = _Pull(reference, cache_dir, cancel_token, progress).run(refresh=refresh)
    except (RuntimeStoreError, OSError) as error:
        raise to_public_error(error, reference.display_name) from error
    if runtime is None:
        message = (
            f"the runtime {reference.display_name} was pulled, but is gone again: something else cleans {cache_dir}"
        )
        raise MemoAirVoiceMemoryError("runtime.start_failed", message)
    return runtime


class _Pull:
    """One run of `pull`."""

    def __init__(
        self, reference: Reference, cache_dir: Path, cancel_token: CancelToken, progress: ProgressCallback
    ) -> None:
        self._reference = reference
        self._platform: Platform = current_platform()
        self._cache = CacheWriter(cache_dir)
        self._cancel_token = cancel_token
        self._progress = progress

    def run(self, *, refresh: bool) -> CachedRuntime | None:
        may_use_cache = not refresh or self._reference.is_pinned
        if may_use_cache and (found := self._find()) is not None:
            return found
        with self._cache.hold_lock(self._reference, self._platform, self._cancel_token):
            if may_use_cache and (found := self._find()) is not None:  # another process was faster
                return found
            started_at = time.monotonic()
            self._fetch_with_retries()
            log.info(
                "pulled a runtime: action=runtime_pulled reference=%s seconds=%.1f",
                self._reference.display_name,
                time.monotonic() - started_at,
            )
            return self._find()

    def _find(self) -> CachedRuntime | None:
        return self._cache.find(self._reference, self._platform)

    def _fetch_with_retries(self) -> None:
        for delay_s in (*_RETRY_DELAYS_S, None):
            downloader = Downloader(self._cancel_token)
            try:
                self._fetch(downloader)
            except RuntimeStoreError as error:
                if delay_s is None or not error.retryable:
                    raise
                log.info("retrying a pull: action=pull_retried reason=%s", error.message)
                self._cancel_token.sleep(delay_s)
            else:
                return
            finally:
                downloader.close()

    def _fetch(self, downloader: Downloader) -> None:
        if isinstance(self._reference, OciReference):
            self._fetch_artifact(downloader, self._reference)
        else:
            self._fetch_release(downloader, self._reference)

    def _fetch_artifact(self, downloader: Downloader, reference: OciReference) -> None:
        registry = Registry(downloader, reference)
        artifact = registry.find_artifact(self._platform)
        digest_from = "reference" if reference.is_pinned else "registry"
        version = artifact.version or reference.version
        total_bytes = sum(layer.size for layer in artifact.layers)
        if total_bytes > MAX_DOWNLOAD_BYTES:
            raise RuntimeStoreError(
                f"the artifact has {total_bytes >> 20} MB, more than the limit of {MAX_DOWNLOAD_BYTES >> 20} MB"
            )
        content_id = artifact.manifest_digest.replace(":", "-")
        if not self._cache.has_content(content_id):
            with self._cache.make_unpack_folder(reference, self._platform) as folder:
                unpacker, done_bytes = Unpacker(folder, self._cancel_token), 0
                for layer in artifact.layers:
                    with self._cache.make_download_file() as file:
                        sha256 = downloader.download(
                            layer.url,
                            file,
                            layer.size,
                            size=layer.size,
                            progress=lambda done, _, before=done_bytes: self._progress(before + done, total_bytes),  # type: ignore[misc]
                            authorization=registry.authorization,
                        )
                        _check_digest(f"sha256:{sha256}", layer.digest)
                        unpacker.add(file, layer.size, layer.title)
                    done_bytes += layer.size
                unpacker.sync_folders()
                self._cache.commit_folder(folder, unpacker.prepare_program(), content_id)
        self._save_entry(artifact.digest, digest_from, content_id, version)

    def _fetch_release(self, downloader: Downloader, release: ReleaseUrl) -> None:
        expected = _find_expected_sha256(downloader, release)
        content_id = f"sha256-{expected}"
        if not self._cache.has_content(content_id):
            with (
                self._cache.make_unpack_folder(release, self._platform) as folder,
                self._cache.make_download_file() as file,
            ):
                sha256 = downloader.download(
                    release.url,
                    file,
                    MAX_DOWNLOAD_BYTES,
                    size=None,
                    progress=self._progress,
                    allow_http=release.is_pinned,
                )
                _check_digest(f"sha256:{sha256}", f"sha256:{expected}")
                unpacker = Unpacker(folder, self._cancel_token)
                unpacker.add(file, file.tell(), _file_name(release))
                unpacker.sync_folders()
                self._cache.commit_folder(folder, unpacker.prepare_program(), content_id)
        self._save_entry(
            f"sha256:{expected}", "reference" if release.is_pinned else "server", content_id, release.version
        )

    def _save_entry(self, digest: str, digest_from: str, content_id: str, version: str | None) -> None:
        self._cache.save_entry(
            self._reference,
            self._platform,
            digest=digest,
            digest_from=digest_from,
            content_id=content_id,
            version=version,
        )


def _check_digest(found: str, expected: str) -> None:
    if found != expected:
        raise RuntimeStoreError(f"the download has the digest {found}, expected {expected}; it was discarded")


def _file_name(release: ReleaseUrl) -> str:
    """Return the file name of a release."""
    return unquote(urlsplit(release.url).path.rpartition("/")[2])


def _find_expected_sha256(downloader: Downloader, release: ReleaseUrl) -> str:
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
    sha256 = _find_checksum(content.decode("utf-8", "replace"), _file_name(release))
    if sha256 is None:
        raise RuntimeStoreError(f"{path}.sha256 has no SHA-256 for {_file_name(release)}")
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
