"""The index file: a store as it lies on the disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from memoair_index.container import Container, ContainerError, write_container
from memoair_index.id_map import IdArrays
from memoair_index.items import ITEM, Array
from memoair_index.labels import LabelArrays
from memoair_index.postings import PostingArrays
from memoair_index.store import StoreArrays

KIND = "memoair index"
VERSION = 1


@attrs.frozen
class IndexFile:
    """An index file that was opened. ``note`` is what its writer noted for himself."""

    container: Container
    arrays: StoreArrays
    fingerprint: str  # of the embedding that made the vectors
    note: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> "IndexFile":
        """Open a file; raises `ContainerError` where it is damaged or none, OSError where it can't be read."""
        file = Container(path, KIND, VERSION)
        try:
            arrays = _arrays(file)
            fingerprint, note = str(file.meta["embedding"]), dict(file.meta["note"])
        except (KeyError, TypeError, ValueError) as error:
            raise ContainerError(f"{path}: what it says of itself is not complete") from error
        _check(arrays, path)
        return cls(file, arrays, fingerprint, note)

    def verify(self) -> None:
        """Compare all of the file with its checksums; raises `ContainerError`. Takes a second for 2 GB."""
        self.container.verify()


def write_index(path: Path, arrays: StoreArrays, fingerprint: str, note: Mapping[str, Any]) -> None:
    """Write a file beside ``path``, durable, and rename it into place; raises OSError, and then leaves nothing."""
    flat: dict[str, Array | bytes] = {
        "items": arrays.items.view(np.uint8),
        "vectors": arrays.vectors,
        "group_ends": arrays.group_ends,
        "records": arrays.records,
        "record_starts": arrays.record_starts,
        "labels": arrays.labels.text,
        "label_starts": arrays.labels.starts,
    }
    for name, postings in _postings_of(arrays).items():
        flat |= {f"{name}.{field}": getattr(postings, field) for field in ("keys", "starts", "items", "counts")}
    for name, table in (("ids", arrays.ids), ("groups", arrays.groups)):
        flat |= {f"{name}.keys": table.keys, f"{name}.values": table.values}
    meta = {
        "embedding": fingerprint,
        "length": arrays.length,
        "linked": arrays.linked,
        "speakers": arrays.speakers,
        "note": dict(note),
    }
    write_container(path, KIND, VERSION, meta, flat)


def _postings_of(arrays: StoreArrays) -> dict[str, PostingArrays]:
    return {"terms": arrays.terms, "label_terms": arrays.labels.terms, "label_items": arrays.labels.documents}


def _arrays(file: Container) -> StoreArrays:
    def postings(name: str) -> PostingArrays:
        return PostingArrays(*(file.array(f"{name}.{field}") for field in ("keys", "starts", "items", "counts")))

    def table(name: str) -> IdArrays:
        return IdArrays(file.array(f"{name}.keys"), file.array(f"{name}.values"))

    items = file.array("items")
    if items.dtype != np.uint8 or items.size % ITEM.itemsize:
        raise ContainerError(f"{file.path}: its items have another size")
    return StoreArrays(
        items=items.view(ITEM),
        length=int(file.meta["length"]),
        linked=bool(file.meta["linked"]),
        vectors=file.array("vectors"),
        terms=postings("terms"),
        labels=LabelArrays(
            file.text("labels"), file.array("label_starts"), postings("label_terms"), postings("label_items")
        ),
        ids=table("ids"),
        groups=table("groups"),
        group_ends=file.array("group_ends"),
        speakers=[str(speaker) for speaker in file.meta.get("speakers", ())],
        records=file.array("records"),
        record_starts=file.array("record_starts"),
    )


def _check(arrays: StoreArrays, path: Path) -> None:
    """Refuse arrays that don't belong together: whoever reads them later trusts their lengths."""
    size = len(arrays.items)
    fits = len(arrays.vectors) == size == len(arrays.record_starts) - 1 == len(arrays.ids.keys)
    fits &= len(arrays.groups.keys) == len(arrays.group_ends) and arrays.vectors.dtype == np.int8
    for postings in _postings_of(arrays).values():
        fits &= len(postings.starts) == len(postings.keys) + 1 and len(postings.items) == len(postings.counts)
        fits &= postings.items.dtype == np.int32 and postings.counts.dtype == np.uint8
    if not fits:
        raise ContainerError(f"{path}: its arrays don't belong together")
