"""The organization's documents as pulled from the cloud: an index file, and the changes since it was made.

``org.json`` in the project's folder is the manifest: it names the index file and contains the changes. All runtimes of
the project read it. The index file is mapped and shared; the changes are few, and each runtime applies them in memory.
"""

import logging
import time
from collections.abc import Iterator, Sequence

import attrs
import msgspec

from memoair_index import ContainerError, Document, Index, document_group, split_document
from memoair_protocol.durable import write_file
from memoair_protocol.private_files import check_private_file, read_private_file
from memoair_runtime.org.source import LoadedOrgIndex, VersionKey
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync.responses import ManifestDocument, OrgKey

log = logging.getLogger(__name__)

# If the named index file is missing, it was replaced at this moment: the next manifest names another one.
_MAX_ATTEMPTS = 5
_RETRY_PAUSE_S = 0.01


class OrgBase(msgspec.Struct, frozen=True):
    """An index file, identified by its content, and the minimum version of the documents in it."""

    sha256: str
    version: int


class OrgManifest(msgspec.Struct, frozen=True):
    """The documents at a version.

    They are those of the base without ``removed``, and with ``documents`` in place of older ones. The field names are
    those of ``org.json``.

    Attributes:
        cloud: Id of the cloud from which they were pulled.
        version: Version of the documents in that cloud.
        base: The index file, if there is one.
        documents: Documents that are new or have changed since the base.
        removed: Keys of documents of the base that were removed.
        epoch: The cloud's epoch, to which the version belongs; None if the cloud named none.
    """

    cloud: str
    version: int
    base: OrgBase | None = None
    documents: Sequence[ManifestDocument] = ()
    removed: Sequence[OrgKey] = ()
    epoch: str | None = None

    @property
    def change_count(self) -> int:
        """Number of documents that were added, changed or removed since the base."""
        return len(self.documents) + len(self.removed)

    @property
    def changed_chars(self) -> int:
        """Number of characters of the documents that were added or changed since the base."""
        return sum(len(document.text) for document in self.documents)

    def with_changes(
        self, version: int, documents: Sequence[ManifestDocument], removed: Sequence[OrgKey]
    ) -> "OrgManifest":
        """Return the manifest after a change.

        Args:
            version: The new version.
            documents: Documents that were added or changed.
            removed: Keys of documents that were removed.
        """
        documents_by_key = {document.key: document for document in self.documents}
        removed_keys = dict.fromkeys(self.removed)
        for key in removed:
            documents_by_key.pop(key, None)
            removed_keys[key] = None
        for document in documents:
            documents_by_key[document.key] = document
            removed_keys.pop(document.key, None)
        return OrgManifest(
            self.cloud, version, self.base, list(documents_by_key.values()), list(removed_keys) if self.base else []
        )


_decode_manifest = msgspec.json.Decoder(OrgManifest).decode


def read_manifest(folder: ProjectFolder) -> OrgManifest | None:
    """Return the manifest of a project, or None without a readable one."""
    try:
        return _decode_manifest(read_private_file(folder.org_manifest))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.warning(
            "failed to read the manifest of the documents: action=manifest_unread error=%s", type(error).__name__
        )
        return None


def write_manifest(folder: ProjectFolder, manifest: OrgManifest) -> None:
    """Replace the manifest of a project; raises OSError.

    It is not synced to the disk: if it is lost, the documents are pulled again.
    """
    write_file(folder.org_manifest, msgspec.json.encode(manifest), durable=False)


def open_index(folder: ProjectFolder, manifest: OrgManifest) -> Index:
    """Open the index of a manifest's documents.

    Raises:
        OSError: If the base cannot be read.
        ContainerError: If the base is not a valid index file.
    """
    index = Index()
    if manifest.base:
        base = folder.org_base(manifest.base.sha256)
        check_private_file(base)
        index = Index.open(base)
        for key in (*manifest.removed, *(document.key for document in manifest.documents)):
            index.remove([chunk.id for chunk in index.group_documents(document_group(key.id, key.index_name))])
    index.add(chunk for document in manifest.documents for chunk in split_into_chunks(document))
    return index


def split_into_chunks(document: ManifestDocument) -> Iterator[Document]:
    """Split a document into the chunks of its index. Index files that the cloud makes have the same chunks."""
    return split_document(document.id, document.text, document.metadata, document.index_name)


@attrs.frozen
class CloudOrg:
    """The `OrgSource` of the documents that were pulled from the cloud.

    Attributes:
        folder: The project's folder, which has the manifest and the index file.
        cloud_id: Id of the configured cloud, or None. Only documents that were pulled from it count: without a cloud,
            none do.
        description: The source for error messages.
        poll_interval_s: Seconds after which a search checks again whether another process has pulled.
    """

    folder: ProjectFolder
    cloud_id: str | None
    description: str = "the documents pulled from the cloud"
    poll_interval_s: float | None = 1.0

    def version_key(self) -> VersionKey | None:
        """Return the manifest's time, size and inode, or None without a manifest; raises OSError."""
        try:
            state = self.folder.org_manifest.stat()
        except FileNotFoundError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def load_index(self) -> LoadedOrgIndex:
        """Return the index of the documents; it is empty without a manifest of the configured cloud.

        Raises:
            OSError: If the index file cannot be read.
            ValueError: If it is not a valid index file; the manifest and the file are deleted then.
        """
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            manifest = read_manifest(self.folder)
            if manifest is None or manifest.cloud != self.cloud_id:
                return LoadedOrgIndex(Index(), 0)
            try:
                base = manifest.base.sha256 if manifest.base else None
                return LoadedOrgIndex(open_index(self.folder, manifest), manifest.version, base)
            except FileNotFoundError:
                if not attempts_left:
                    raise
                time.sleep(_RETRY_PAUSE_S)
            except ContainerError:
                self.rebuild()
                raise
        raise AssertionError("the last attempt returns or raises")

    def rebuild(self) -> LoadedOrgIndex:
        """Delete the manifest and the damaged index file, and return an empty index until the next pull."""
        manifest = read_manifest(self.folder)
        self.folder.org_manifest.unlink(missing_ok=True)
        if manifest is not None and manifest.base is not None:
            self.folder.org_base(manifest.base.sha256).unlink(missing_ok=True)
        return LoadedOrgIndex(Index(), 0)
