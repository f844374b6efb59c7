"""One pull: from a reference to a program in the cache, or to an error that says what to do."""

import time
from pathlib import Path

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync.runtime_store.archive import Unpacker
from memoair_voice_sync.runtime_store.cache import CachedRuntime
from memoair_voice_sync.runtime_store.cache_writer import CacheWriter
from memoair_voice_sync.runtime_store.cancel_token import CancelToken
from memoair_voice_sync.runtime_store.checksums import expected_sha256, file_name
from memoair_voice_sync.runtime_store.downloader import Downloader, Progress
from memoair_voice_sync.runtime_store.errors import RuntimeStoreError, error_of
from memoair_voice_sync.runtime_store.reference import OciReference, Platform, Reference, ReleaseUrl, this_platform
from memoair_voice_sync.runtime_store.registry import Registry

MOST_BYTES = 1 << 30
# A connection that breaks costs the pull only when it has broken so often; the pauses are the time between.
_PAUSES_S = (0.5, 2.0)


def pull(
    reference: Reference,
    cache_dir: Path,
    stop: CancelToken,
    progress: Progress = lambda *_: None,
    *,
    again: bool = False,
) -> CachedRuntime:
    """Have a runtime at hand: from the cache, else from where the reference says. One process pulls, others wait.

    ``again`` asks what the reference names now, where it may name something else than when it was pulled. Raises
    `MemoAirVoiceMemoryError` with ``runtime.not_found`` where there is no such runtime, or not for us, and with
    ``runtime.start_failed`` where it can't be had now or is not what it should be; `PullCancelledError` where it was called off.
    """
    try:
        found = _Pull(reference, cache_dir, stop, progress).run(again=again)
    except (RuntimeStoreError, OSError) as fault:
        raise error_of(fault, reference.shown) from fault
    if found is None:
        message = f"the runtime {reference.shown} was pulled and is gone: something else cleans {cache_dir}"
        raise MemoAirVoiceMemoryError("runtime.start_failed", message)
    return found


class _Pull:
    """A pull that is under way."""

    def __init__(self, reference: Reference, cache_dir: Path, stop: CancelToken, progress: Progress) -> None:
        self._reference = reference
        self._target: Platform = this_platform()
        self._cache = CacheWriter(cache_dir)
        self._stop = stop
        self._progress = progress

    def run(self, *, again: bool) -> CachedRuntime | None:
        is_settled = not again or self._reference.is_pinned
        if is_settled and (found := self._find()) is not None:
            return found
        with self._cache.pulling(self._reference, self._target, self._stop):
            if is_settled and (found := self._find()) is not None:  # another process was faster
                return found
            began_at = time.monotonic()
            self._patiently()
            log.info(
                "a runtime was pulled: action=runtime_pulled reference=%s seconds=%.1f",
                self._reference.shown,
                time.monotonic() - began_at,
            )
            return self._find()

    def _find(self) -> CachedRuntime | None:
        return self._cache.find(self._reference, self._target)

    def _patiently(self) -> None:
        for pause_s in (*_PAUSES_S, None):
            web = Downloader(self._stop)
            try:
                self._fetch(web)
            except RuntimeStoreError as fault:
                if pause_s is None or not fault.may_pass:
                    raise
                log.info("a pull is tried again: action=pull_retried reason=%s", fault.message)
                self._stop.pause(pause_s)
            else:
                return
            finally:
                web.close()

    def _fetch(self, web: Downloader) -> None:
        if isinstance(self._reference, OciReference):
            self._fetch_artifact(web, self._reference)
        else:
            self._fetch_release(web, self._reference)

    def _fetch_artifact(self, web: Downloader, reference: OciReference) -> None:
        registry = Registry(web, reference)
        artifact = registry.artifact(self._target)
        digest_from = "reference" if reference.is_pinned else "registry"
        version = artifact.version or reference.version
        whole = sum(each.size for each in artifact.layers)
        if whole > MOST_BYTES:
            raise RuntimeStoreError(f"it is {whole >> 20} MB long, and no more than {MOST_BYTES >> 20} MB are taken")
        content = artifact.manifest.replace(":", "-")
        if not self._cache.has_content(content):
            with self._cache.unpacking(reference, self._target) as folder:
                unpacker, before = Unpacker(folder, self._stop), 0
                for layer in artifact.layers:
                    with self._cache.unnamed_file() as file:
                        found = web.download(
                            layer.url,
                            file,
                            layer.size,
                            size=layer.size,
                            progress=lambda done, _, before=before: self._progress(before + done, whole),  # type: ignore[misc]
                            authorization=registry.authorization,
                        )
                        _compare(f"sha256:{found}", layer.digest)
                        unpacker.add(file, layer.size, layer.title)
                    before += layer.size
                unpacker.sync()
                self._cache.keep(folder, unpacker.program(), content)
        self._name(artifact.digest, digest_from, content, version)

    def _fetch_release(self, web: Downloader, release: ReleaseUrl) -> None:
        expected = expected_sha256(web, release)
        content = f"sha256-{expected}"
        if not self._cache.has_content(content):
            with self._cache.unpacking(release, self._target) as folder, self._cache.unnamed_file() as file:
                found = web.download(
                    release.url,
                    file,
                    MOST_BYTES,
                    size=None,
                    progress=self._progress,
                    allow_http=release.is_pinned,
                )
                _compare(f"sha256:{found}", f"sha256:{expected}")
                unpacker = Unpacker(folder, self._stop)
                unpacker.add(file, file.tell(), file_name(release))
                unpacker.sync()
                self._cache.keep(folder, unpacker.program(), content)
        self._name(f"sha256:{expected}", "reference" if release.is_pinned else "server", content, release.version)

    def _name(self, digest: str, digest_from: str, content: str, version: str | None) -> None:
        self._cache.name(
            self._reference,
            self._target,
            digest=digest,
            digest_from=digest_from,
            content=content,
            version=version,
        )


def _compare(found: str, expected: str) -> None:
    if found != expected:
        raise RuntimeStoreError(f"what came has the digest {found}, which should be {expected}; it is thrown away")
