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
from memoair_runtime.recall.org_manifest import OrgBase, OrgManifest, open_index, read_manifest, write_manifest
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync.errors import CloudError, unreadable
from memoair_runtime.sync.responses import OrgFileInfo
from memoair_runtime.sync.transport import LONGEST_CALL_S, LONGEST_DOWNLOAD_S, CloudTransport

log = logging.getLogger(__name__)

# Every runtime reads the changes when it starts, a tenth of a millisecond each, and has them in its own memory.
MOST_CHANGES, MOST_CHANGED_CHARS = 256, 1 << 20
_LOOK_S = 0.02
_HASHED_BYTES = 1 << 20


class OrgPuller:
    """Keeps the manifest of a project's documents. Used by one thread.

    ``show`` lets what the manifest tells be searched here.
    """

    def __init__(self, folder: ProjectFolder, cloud: str, transport: CloudTransport, show: Callable[[], None]) -> None:
        self._folder = folder
        self._cloud = cloud
        self._transport = transport
        self._show = show
        self._role = ProcessLock(folder.role("org-sync"))
        self._useless: set[str] = set()  # files that this version can't open

    @property
    def version(self) -> int | None:
        """The version of the documents that are here; None where there are none."""
        manifest = self._manifest()
        return manifest.version if manifest else None

    def pull(self, wanted: int, file: OrgFileInfo | None, waits_until: float) -> bool:
        """Bring the documents to the cloud's version, which is at least ``wanted``; False where another process is
        at it and has not come so far by ``waits_until`` (monotonic seconds).

        Raises `CloudError`, or OSError where the disk refuses.
        """
        self._folder.create()
        while not self._role.take():
            if (self.version or 0) >= wanted:
                self._show()
                return True
            if time.monotonic() >= waits_until:
                return False
            time.sleep(_LOOK_S)
        try:
            manifest = self._manifest()
            if (manifest.version if manifest else 0) != wanted:
                self._bring(manifest, file)
        finally:
            self._role.leave()
        self._show()
        return True

    def _manifest(self) -> OrgManifest | None:
        manifest = read_manifest(self._folder)
        if manifest is None or manifest.cloud != self._cloud:
            return None
        is_whole = manifest.base is None or self._folder.org_base(manifest.base.sha256).exists()
        return manifest if is_whole else None

    def _bring(self, manifest: OrgManifest | None, file: OrgFileInfo | None) -> None:
        before = manifest
        if manifest is None and file is not None and self._has(file):
            manifest = self._over(file)
        manifest, file = self._caught_up(manifest)
        if manifest.change_count > MOST_CHANGES or manifest.changed_chars > MOST_CHANGED_CHARS:
            is_newer = file is not None and (manifest.base is None or file.version > manifest.base.version)
            if file is not None and is_newer and self._has(file):
                manifest, _ = self._caught_up(self._over(file))
            else:
                manifest = self._folded(manifest)
        elif manifest.base is None and manifest.documents:
            manifest = self._folded(manifest)
        if manifest != before:
            write_manifest(self._folder, manifest)
        self._tidy(manifest)

    def _over(self, file: OrgFileInfo) -> OrgManifest:
        return OrgManifest(self._cloud, file.version, OrgBase(file.sha256, file.version))

    def _caught_up(self, manifest: OrgManifest | None) -> tuple[OrgManifest, OrgFileInfo | None]:
        """The manifest with all that the cloud has, and the file that it built last."""
        file = None
        while True:
            since = manifest.version if manifest else None
            answer = self._transport.org(since, time.monotonic() + LONGEST_CALL_S)
            if answer is None:
                if manifest is None:
                    raise unreadable("nothing has changed since nothing")
                return manifest, file
            file = answer.file
            if answer.mode == "snapshot":
                manifest = OrgManifest(self._cloud, answer.version, None, answer.documents)
            elif manifest is None:
                raise unreadable("changes of nothing")
            else:
                manifest = manifest.with_changes(answer.version, answer.documents, answer.removed)
            if not answer.more:
                return manifest, file
            if answer.version == since:
                raise unreadable("more of the same")

    def _has(self, file: OrgFileInfo) -> bool:
        """Download a file where it is not here yet; tell whether it can be used."""
        path = self._folder.org_base(file.sha256)
        if file.sha256 in self._useless:
            return False
        if path.exists():
            return True
        part = self._part()
        try:
            self._transport.org_file(file, part, time.monotonic() + LONGEST_DOWNLOAD_S)
            part.chmod(0o600)
            Index.open(part)
            part.replace(path)
        except ContainerError as error:
            log.warning("the cloud's index file can't be used: action=org_file_useless error=%s", type(error).__name__)
            self._useless.add(file.sha256)
            return False
        except CloudError as failure:
            # It may have been replaced by the next one; the documents themselves can be had in any case.
            log.warning("the cloud's index file was not had: action=org_file_failed why=%s", failure.message)
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def _folded(self, manifest: OrgManifest) -> OrgManifest:
        """The same documents in one index file, made here."""
        try:
            index = open_index(self._folder, manifest)
            part = self._part()
            index.merge(part)
        except (FileNotFoundError, ContainerError):  # the base is gone or damaged: begin anew, with the next pull
            self._folder.org_manifest.unlink(missing_ok=True)
            raise unreadable("the index file that it goes on from is gone") from None
        try:
            digest = _sha256(part)
            part.replace(self._folder.org_base(digest))
        finally:
            part.unlink(missing_ok=True)
        return OrgManifest(manifest.cloud, manifest.version, OrgBase(digest, manifest.version))

    def _part(self) -> Path:
        return self._folder.path / f"org-cloud-{uuid.uuid4().hex}.part"

    def _tidy(self, manifest: OrgManifest) -> None:
        """Delete the files that are named no more; who has one open goes on with it."""
        named = self._folder.org_base(manifest.base.sha256) if manifest.base else None
        for path in self._folder.org_bases():
            if path != named:
                with suppress(OSError):
                    path.unlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASHED_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
