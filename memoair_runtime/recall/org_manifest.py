"""The organisation's documents as the cloud told of them: an index file, and what has changed since it was made.

``org.json`` in the project's folder names the file and holds the changes; all runtimes of the project read it. The file
is mapped and shared; the changes are few, and each runtime has them in memory over it.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import msgspec

from memoair_index import ContainerError, Document, Index, documents_of, group_of
from memoair_runtime.recall.org_source import LoadedOrgIndex, VersionKey
from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.project_folder import ProjectFolder

log = logging.getLogger(__name__)

# A base that is named and not there was replaced this moment: the next manifest names another.
_MAX_ATTEMPTS = 5
_RETRY_PAUSE_S = 0.01


class ManifestDocument(msgspec.Struct, frozen=True, rename="camel"):
    """A document, by its index and its id there."""

    index_name: str
    id: str
    text: str
    metadata: dict[str, Any] = {}

    @property
    def key(self) -> "OrgKey":
        """What it is known by."""
        return OrgKey(self.index_name, self.id)


class OrgKey(msgspec.Struct, frozen=True, rename="camel"):
    """What a document is known by."""

    index_name: str
    id: str


class OrgBase(msgspec.Struct, frozen=True):
    """An index file, by its content, and the version of the documents that it holds, at least."""

    sha256: str
    version: int


class OrgManifest(msgspec.Struct, frozen=True):
    """The documents at a version: those of the base, without ``removed`` and with ``documents`` in place of older ones.

    ``cloud`` names who told of them.
    """

    cloud: str
    version: int
    base: OrgBase | None = None
    documents: Sequence[ManifestDocument] = ()
    removed: Sequence[OrgKey] = ()

    @property
    def change_count(self) -> int:
        """How many documents came or went since the base was made."""
        return len(self.documents) + len(self.removed)

    @property
    def changed_chars(self) -> int:
        """How much text came since then."""
        return sum(len(document.text) for document in self.documents)

    def with_changes(
        self, version: int, documents: Sequence[ManifestDocument], removed: Sequence[OrgKey]
    ) -> "OrgManifest":
        """The manifest after a change."""
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
    """The manifest, if there is one that can be read."""
    try:
        return _decode_manifest(folder.org_manifest.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning(
            "what is known of the documents can't be read: action=manifest_unread error=%s", type(error).__name__
        )
        return None


def write_manifest(folder: ProjectFolder, manifest: OrgManifest) -> None:
    """Put a manifest in place of the one before; raises OSError."""
    write_file(folder.org_manifest, msgspec.json.encode(manifest), durable=False)


def open_index(folder: ProjectFolder, manifest: OrgManifest) -> Index:
    """The index of a manifest's documents.

    Raises OSError or `memoair_index.ContainerError` for a base that is no good.
    """
    index = Index.open(folder.org_base(manifest.base.sha256)) if manifest.base else Index()
    if manifest.base:
        for key in (*manifest.removed, *(document.key for document in manifest.documents)):
            index.remove([chunk.id for chunk in index.group(group_of(key.id, key.index_name))])
    index.add(chunk for document in manifest.documents for chunk in split_into_chunks(document))
    return index


def split_into_chunks(document: ManifestDocument) -> Iterator[Document]:
    """A document as it stands in the index, also in the one that the cloud makes."""
    return documents_of(document.id, document.text, document.metadata, document.index_name)


@attrs.frozen
class CloudOrg:
    """The documents that the project's manifest tells of; see `memoair_runtime.recall.org_source.OrgSource`."""

    folder: ProjectFolder
    cloud_id: str | None  # the one that we talk to; what another told does not count
    description: str = "what the cloud told of the documents"
    poll_interval_s: float | None = 1.0

    def version_key(self) -> VersionKey | None:
        """What tells whether there is another manifest; None where there is none."""
        try:
            state = self.folder.org_manifest.stat()
        except FileNotFoundError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def load_index(self) -> LoadedOrgIndex:
        """The documents' index; raises OSError or ValueError."""
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            manifest = read_manifest(self.folder)
            if manifest is None or self.cloud_id not in (None, manifest.cloud):
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
        raise AssertionError("the last try returns or raises")

    def rebuild(self) -> LoadedOrgIndex:
        """What is left where the base is damaged: nothing, until the cloud has told anew."""
        manifest = read_manifest(self.folder)
        self.folder.org_manifest.unlink(missing_ok=True)
        if manifest is not None and manifest.base is not None:
            self.folder.org_base(manifest.base.sha256).unlink(missing_ok=True)
        return LoadedOrgIndex(Index(), 0)
