"""Pull of the organisation's documents: by one process of a project for all of them.

The cloud builds index files, and says what has changed since. So a new machine downloads a file and the changes, and
later the changes only, until they have grown so much that the next file is worth its way.
"""

import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from memoair_index import ContainerError, Index
from memoair_runtime.recall.org_manifest import OrgBase, OrgManifest, open_documents, read_manifest, write_manifest
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync.errors import CloudError, invalid_response
from memoair_runtime.sync.responses import OrgFileInfo
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, DOWNLOAD_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)

# Every runtime reads the changes when it starts, a tenth of a millisecond each, and has them in its own memory.
MAX_CHANGES, MAX_CHANGED_CHARS = 256, 1 << 20
_POLL_INTERVAL_S = 0.02
_HASH_CHUNK_BYTES = 1 << 20


class OrgPuller:
    """Keeps the manifest of a project's documents. Used by one thread.

    ``show`` lets what the manifest tells be searched here.
    """

    def __init__(
        self, folder: ProjectFolder, cloud: str, transport: CloudTransport, reload: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._cloud = cloud
        self._transport = transport
        self._reload = reload
        self._lock = ProcessLock(folder.lock("org-sync"))
        self._unusable_files: set[str] = set()  # files that this version can't open

    @property
    def version(self) -> int | None:
        """The version of the documents that are here; None where there are none."""
        manifest = self._read_manifest()
        return manifest.version if manifest else None

    def pull(self, target_version: int, file: OrgFileInfo | None, lock_deadline: float) -> bool:
        """Bring the documents to the cloud's version, which is at least ``wanted``; False where another process is
        at it and has not come so far by ``waits_until`` (monotonic seconds).

        Raises `CloudError`, or OSError where the disk refuses.
        """
        self._folder.create()
        while not self._lock.try_acquire():
            if (self.version or 0) >= target_version:
                self._reload()
                return True
            if time.monotonic() >= lock_deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
        try:
            manifest = self._read_manifest()
            if (manifest.version if manifest else 0) != target_version:
                self._update(manifest, file)
        finally:
            self._lock.release()
        self._reload()
        return True

    def _read_manifest(self) -> OrgManifest | None:
        manifest = read_manifest(self._folder)
        if manifest is None or manifest.cloud != self._cloud:
            return None
        is_complete = manifest.base is None or self._folder.org_base(manifest.base.sha256).exists()
        return manifest if is_complete else None

    def _update(self, manifest: OrgManifest | None, file: OrgFileInfo | None) -> None:
        old_manifest = manifest
        if manifest is None and file is not None and self._ensure_downloaded(file):
            manifest = self._manifest_of_file(file)
        manifest, file = self._pull_changes(manifest)
        if manifest.changes > MAX_CHANGES or manifest.changed_chars > MAX_CHANGED_CHARS:
            is_newer = file is not None and (manifest.base is None or file.version > manifest.base.version)
            if file is not None and is_newer and self._ensure_downloaded(file):
                manifest, _ = self._pull_changes(self._manifest_of_file(file))
            else:
                manifest = self._merge_changes(manifest)
        elif manifest.base is None and manifest.documents:
            manifest = self._merge_changes(manifest)
        if manifest != old_manifest:
            write_manifest(self._folder, manifest)
        self._delete_unreferenced(manifest)

    def _manifest_of_file(self, file: OrgFileInfo) -> OrgManifest:
        return OrgManifest(self._cloud, file.version, OrgBase(file.sha256, file.version))

    def _pull_changes(self, manifest: OrgManifest | None) -> tuple[OrgManifest, OrgFileInfo | None]:
        """The manifest with all that the cloud has, and the file that it built last."""
        file = None
        while True:
            since = manifest.version if manifest else None
            response = self._transport.fetch_org(since, time.monotonic() + CALL_TIMEOUT_S)
            if response is None:
                if manifest is None:
                    raise invalid_response("nothing has changed since nothing")
                return manifest, file
            file = response.file
            if response.mode == "snapshot":
                manifest = OrgManifest(self._cloud, response.version, None, response.documents)
            elif manifest is None:
                raise invalid_response("changes of nothing")
            else:
                manifest = manifest.changed(response.version, response.documents, response.removed)
            if not response.more:
                return manifest, file
            if response.version == since:
                raise invalid_response("more of the same")

    def _ensure_downloaded(self, file: OrgFileInfo) -> bool:
        """Download a file where it is not here yet; tell whether it can be used."""
        path = self._folder.org_base(file.sha256)
        if file.sha256 in self._unusable_files:
            return False
        if path.exists():
            return True
        temporary = self._temporary_path()
        try:
            self._transport.download_org_file(file, temporary, time.monotonic() + DOWNLOAD_TIMEOUT_S)
            temporary.chmod(0o600)
            Index.open(temporary)
            temporary.replace(path)
        except ContainerError as error:
            log.warning("the cloud's index file can't be used: action=org_file_useless error=%s", type(error).__name__)
            self._unusable_files.add(file.sha256)
            return False
        except CloudError as error:
            # It may have been replaced by the next one; the documents themselves can be had in any case.
            log.warning("the cloud's index file was not had: action=org_file_failed why=%s", error.message)
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _merge_changes(self, manifest: OrgManifest) -> OrgManifest:
        """The same documents in one index file, made here."""
        try:
            index = open_documents(self._folder, manifest)
            temporary = self._temporary_path()
            index.merge(temporary)
        except (FileNotFoundError, ContainerError):  # the base is gone or damaged: begin anew, with the next pull
            self._folder.org_manifest.unlink(missing_ok=True)
            raise invalid_response("the index file that it goes on from is gone") from None
        try:
            digest = _sha256(temporary)
            temporary.replace(self._folder.org_base(digest))
        finally:
            temporary.unlink(missing_ok=True)
        return OrgManifest(manifest.cloud, manifest.version, OrgBase(digest, manifest.version))

    def _temporary_path(self) -> Path:
        return self._folder.path / f"org-cloud-{uuid.uuid4().hex}.part"

    def _delete_unreferenced(self, manifest: OrgManifest) -> None:
        """Delete the files that are named no more; who has one open goes on with it."""
        referenced = self._folder.org_base(manifest.base.sha256) if manifest.base else None
        for path in self._folder.list_org_bases():
            if path != referenced:
                with suppress(OSError):
                    path.unlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
