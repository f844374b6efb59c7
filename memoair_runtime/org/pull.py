"""Pull of the project's documents: one process of a project pulls for all of them.

The cloud builds index files, and reports what has changed since. A new machine downloads the file and the changes;
after that only changes, until there are so many that downloading the next file is worth it.
"""

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from memoair_index import ContainerError, Index
from memoair_protocol.durable import sync_file
from memoair_protocol.hashes import hash_file
from memoair_runtime.org.manifest import OrgBase, OrgManifest, open_index, read_manifest, write_manifest
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync.errors import CloudError, FailureKind, invalid_response
from memoair_runtime.sync.responses import Bootstrap, OrgFileInfo
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, DOWNLOAD_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)

# Every runtime reads the changes when it starts, 0.1 ms each, and holds them in its own memory.
MAX_CHANGES, MAX_CHANGED_CHARS = 256, 1 << 20
_POLL_INTERVAL_S = 0.02


class OrgPuller:
    """Keeps the manifest of a project's documents up to date. For one thread.

    Args:
        folder: The project's folder.
        cloud: Identifies the cloud.
        transport: The connection to the cloud.
        reload: Called when the manifest may have changed, to make its documents searchable.
    """

    def __init__(
        self, folder: ProjectFolder, cloud: str, transport: CloudTransport, reload: Callable[[], object]
    ) -> None:
        self._folder = folder
        self._cloud = cloud
        self._transport = transport
        self._reload = reload
        self._lock = ProcessLock(folder.lock("org-sync"))
        self._was_rejected = False  # the next pull then asks for everything: our version may be the reason
        self._unusable_files: set[str] = set()  # SHA-256 of files that this version cannot open

    @property
    def version(self) -> int | None:
        """The version of the documents on this machine; None if there are none."""
        manifest = self._read_manifest()
        return manifest.version if manifest else None

    def pull(self, bootstrap: Bootstrap, lock_deadline: float) -> bool:
        """Pull the documents.

        Args:
            bootstrap: The cloud's version of the documents, or an earlier one, and the index file that it built last.
            lock_deadline: How long to wait for another process that is pulling, in monotonic seconds.

        Returns:
            False if another process is pulling and has not reached the version in time.

        Raises:
            CloudError: A request failed.
            OSError: A file cannot be written.
        """
        target_version = bootstrap.org_manifest_version
        self._folder.create()
        while not self._lock.try_acquire():
            manifest = self._read_manifest()
            if (manifest.version if manifest else 0) >= target_version and not _is_outdated(manifest, bootstrap):
                self._reload()
                return True
            if time.monotonic() >= lock_deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
        try:
            manifest = self._read_manifest()
            if self._was_rejected or _is_outdated(manifest, bootstrap):
                self._update(None, bootstrap)
            elif (manifest.version if manifest else 0) != target_version:
                self._update(manifest, bootstrap)
            self._was_rejected = False
        except CloudError as error:
            self._was_rejected = error.kind is FailureKind.ONE_REQUEST
            raise
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

    def _update(self, manifest: OrgManifest | None, bootstrap: Bootstrap) -> None:
        old_manifest, file = manifest, bootstrap.org_file
        epoch = bootstrap.epoch or (manifest.epoch if manifest else None)
        if manifest is None and file is not None and self._ensure_downloaded(file):
            manifest = self._manifest_of_file(file)
        manifest, file = self._pull_changes(manifest)
        if manifest.change_count > MAX_CHANGES or manifest.changed_chars > MAX_CHANGED_CHARS:
            is_newer = file is not None and (manifest.base is None or file.version > manifest.base.version)
            if file is not None and is_newer and self._ensure_downloaded(file):
                manifest, _ = self._pull_changes(self._manifest_of_file(file))
            else:
                manifest = self._merge_changes(manifest)
        elif manifest.base is None and manifest.documents:
            manifest = self._merge_changes(manifest)
        manifest = msgspec.structs.replace(manifest, epoch=epoch)
        if manifest != old_manifest:
            write_manifest(self._folder, manifest)
        self._delete_unreferenced(manifest)

    def _manifest_of_file(self, file: OrgFileInfo) -> OrgManifest:
        return OrgManifest(self._cloud, file.version, OrgBase(file.sha256, file.version))

    def _pull_changes(self, manifest: OrgManifest | None) -> tuple[OrgManifest, OrgFileInfo | None]:
        """Return the manifest with all changes from the cloud, and the file that the cloud built last."""
        file = None
        while True:
            since = manifest.version if manifest else None
            response = self._transport.fetch_org(since, time.monotonic() + CALL_TIMEOUT_S)
            if response is None:
                if manifest is None:
                    raise invalid_response("304 Not Modified in reply to an unconditional request")
                return manifest, file
            file = response.file
            if response.mode == "snapshot":
                manifest = OrgManifest(self._cloud, response.version, None, response.documents)
            elif manifest is None:
                raise invalid_response("a delta in reply to a request for a snapshot")
            else:
                manifest = manifest.with_changes(response.version, response.documents, response.removed)
            if not response.more:
                return manifest, file
            if response.version == since:
                raise invalid_response("more data is announced but the version does not advance")

    def _ensure_downloaded(self, file: OrgFileInfo) -> bool:
        """Download a file if it is missing; return whether it is usable."""
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
            sync_file(temporary)  # a file that has its name is used by the next pull as it is
            temporary.replace(path)
        except ContainerError as error:
            log.warning("the cloud's index file is unusable: action=org_file_useless error=%s", type(error).__name__)
            self._unusable_files.add(file.sha256)
            return False
        except CloudError as error:
            # The file may have been replaced by a newer one. The documents themselves can be pulled in any case.
            log.warning("cannot download the cloud's index file: action=org_file_failed why=%s", error.message)
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _merge_changes(self, manifest: OrgManifest) -> OrgManifest:
        """Merge the documents into one index file on this machine."""
        try:
            index = open_index(self._folder, manifest)
            temporary = self._temporary_path()
            index.merge(temporary)
        except (FileNotFoundError, ContainerError):  # the base file is missing or damaged: the next pull starts over
            self._folder.org_manifest.unlink(missing_ok=True)
            raise CloudError(
                FailureKind.TRANSIENT, "the index file that the changes are based on is missing or damaged"
            ) from None
        try:
            digest = hash_file(temporary)
            temporary.replace(self._folder.org_base(digest))
        finally:
            temporary.unlink(missing_ok=True)
        return OrgManifest(manifest.cloud, manifest.version, OrgBase(digest, manifest.version))

    def _temporary_path(self) -> Path:
        return self._folder.path / f"org-cloud-{uuid.uuid4().hex}.part"

    def _delete_unreferenced(self, manifest: OrgManifest) -> None:
        """Delete the files that the manifest no longer refers to. A process that has one open keeps it."""
        referenced = self._folder.org_base(manifest.base.sha256) if manifest.base else None
        for path in self._folder.list_org_bases():
            if path != referenced:
                with suppress(OSError):
                    path.unlink()


def _is_outdated(manifest: OrgManifest | None, bootstrap: Bootstrap) -> bool:
    """Return whether the documents are of another epoch of the cloud: its versions say nothing about them."""
    return manifest is not None and bootstrap.epoch not in (None, manifest.epoch)
