"""The index file: a store on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from memoair_index.analysis import ANALYSIS_VERSION
from memoair_index.container import Container, ContainerError, write_container
from memoair_index.id_map import IdArrays
from memoair_index.items import ITEM_DTYPE, Array
from memoair_index.labels import LabelArrays
from memoair_index.languages import ENGLISH
from memoair_index.misspellings import NO_SIGNATURES
from memoair_index.postings import PostingArrays
from memoair_index.store import StoreArrays

KIND = "memoair index"
VERSION = 1


@attrs.frozen
class IndexFile:
    """An open index file.

    Attributes:
        container: The file.
        arrays: Its arrays, mapped.
        fingerprint: Identifies the embedding that made the vectors.
        metadata: Small JSON metadata that the writer of the file stored with it.
        is_outdated: Whether an earlier release analyzed the documents. They are found by the terms of that release.
    """

    container: Container
    arrays: StoreArrays
    fingerprint: str
    metadata: Mapping[str, Any]
    is_outdated: bool

    @classmethod
    def open(cls, path: Path) -> "IndexFile":
        """Open a file; raises `ContainerError` if it is damaged or not an index, OSError if reading fails."""
        file = Container(path, KIND, VERSION)
        try:
            arrays = _read_arrays(file)
            fingerprint, metadata = str(file.meta["embedding"]), dict(file.meta["note"])
            is_outdated = int(file.meta.get("analysis", 1)) < ANALYSIS_VERSION
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ContainerError(f"{path}: the metadata is incomplete or invalid") from error
        _check_arrays(arrays, path)
        return cls(file, arrays, fingerprint, metadata, is_outdated)

    def verify(self) -> None:
        """Compare the whole file with its checksums; raises `ContainerError`. Takes one second for 2 GB."""
        self.container.verify()


def write_index(path: Path, arrays: StoreArrays, fingerprint: str, metadata: Mapping[str, Any]) -> None:
    """Write an index file durably and replace ``path`` by it; see `write_container`. Raises OSError."""
    sections: dict[str, Array | bytes] = {
        "items": arrays.items.view(np.uint8),
        "vectors": arrays.vectors,
        "group_ends": arrays.group_ends,
        "records": arrays.records,
        "record_starts": arrays.record_starts,
        "labels": arrays.labels.text,
        "label_starts": arrays.labels.starts,
        "signatures": arrays.signatures,
    }
    for name, postings in _postings_by_name(arrays).items():
        sections |= {f"{name}.{field}": getattr(postings, field) for field in ("keys", "starts", "items", "counts")}
    for name, id_arrays in (("ids", arrays.ids), ("groups", arrays.groups)):
        sections |= {f"{name}.keys": id_arrays.keys, f"{name}.values": id_arrays.values}
    meta = {
        "embedding": fingerprint,
        "languages": dict(arrays.languages),
        "analysis": ANALYSIS_VERSION,
        "length": arrays.total_length,
        "linked": arrays.has_neighbors,
        "speakers": arrays.speakers,
        "note": dict(metadata),
    }
    write_container(path, KIND, VERSION, meta, sections)


def _postings_by_name(arrays: StoreArrays) -> dict[str, PostingArrays]:
    return {"terms": arrays.terms, "label_terms": arrays.labels.terms, "label_items": arrays.labels.documents}


def _read_arrays(file: Container) -> StoreArrays:
    def read_postings(name: str) -> PostingArrays:
        return PostingArrays(
            file.get_array(f"{name}.keys", np.uint64),
            file.get_array(f"{name}.starts", np.uint32),
            file.get_array(f"{name}.items", np.int32),
            file.get_array(f"{name}.counts", np.uint8),
        )

    def read_ids(name: str) -> IdArrays:
        return IdArrays(file.get_array(f"{name}.keys", np.uint64), file.get_array(f"{name}.values", np.int32))

    items = file.get_array("items", np.uint8)
    if items.size % ITEM_DTYPE.itemsize:
        raise ContainerError(f"{file.path}: the items have an unexpected size")
    languages = file.meta.get("languages", {ENGLISH: items.size // ITEM_DTYPE.itemsize})
    return StoreArrays(
        items=items.view(ITEM_DTYPE),
        languages={str(name): int(count) for name, count in languages.items()},
        total_length=int(file.meta["length"]),
        has_neighbors=bool(file.meta["linked"]),
        vectors=file.get_array("vectors", np.int8, 2),
        terms=read_postings("terms"),
        signatures=file.get_array("signatures", np.uint64) if "analysis" in file.meta else NO_SIGNATURES,
        labels=LabelArrays(
            file.get_bytes("labels"),
            file.get_array("label_starts", np.int64),
            read_postings("label_terms"),
            read_postings("label_items"),
        ),
        ids=read_ids("ids"),
        groups=read_ids("groups"),
        group_ends=file.get_array("group_ends", np.int32),
        speakers=[str(speaker) for speaker in file.meta.get("speakers", ())],
        records=file.get_array("records", np.uint8),
        record_starts=file.get_array("record_starts", np.int64),
    )


def _check_arrays(arrays: StoreArrays, path: Path) -> None:
    """Raise `ContainerError` for arrays that do not fit together: later reads rely on their lengths."""
    size = len(arrays.items)
    fits = len(arrays.vectors) == size == len(arrays.record_starts) - 1 == len(arrays.ids.keys)
    fits &= len(arrays.groups.keys) == len(arrays.group_ends) and len(arrays.labels.starts) > 0
    fits &= all(len(names.keys) == len(names.values) for names in (arrays.ids, arrays.groups))
    for postings in _postings_by_name(arrays).values():
        fits &= len(postings.starts) == len(postings.keys) + 1 and len(postings.items) == len(postings.counts)
    if not fits:
        raise ContainerError(f"{path}: the arrays do not fit together")
