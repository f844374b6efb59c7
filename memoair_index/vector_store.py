"""Vectors of documents by a transformer, kept in a file, so that each text is encoded once.

The file is a cache: it can be lost at any time, and one that is damaged, or that another model made, is thrown away and
made anew. It holds no texts, and no ids but as 64-bit numbers.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import stable_hash
from memoair_index.container import Container, ContainerError, write_container
from memoair_index.items import NONE, GrowingArray
from memoair_index.transformer import Transformer

log = logging.getLogger(__name__)

KIND = "memoair text vectors"
VERSION = 1

_Keys = NDArray[np.uint64]
_Float16s = NDArray[np.float16]


class VectorStore:
    """Vectors by document id, in 16-bit floats: those of a file, mapped, and those that came since, in memory.

    Every method may be called from any thread. What is learned is on the disk after the next `save`. Of two processes
    that save to one file the later one wins.
    """

    def __init__(self, path: Path, transformer: Transformer) -> None:
        """Open a file, whose folder must be there by the time of `save`; never fails for what stands in it."""
        self._path = path
        self._transformer = transformer
        self._lock = threading.Lock()
        self._save_lock = threading.Lock()
        self._keys, vectors = self._load_file()  # sorted; a key's place is its row
        self._rows = GrowingArray(vectors)
        self._added_rows: dict[
            int, int
        ] = {}  # the rows of keys that were learned since; they go before those of the file
        self._unsaved_count = 0

    @property
    def unsaved_count(self) -> int:
        """How many vectors were learned that no file holds yet."""
        with self._lock:
            return self._unsaved_count

    def __len__(self) -> int:
        """Count the documents whose vectors are known."""
        with self._lock:
            replaced = sum(bool(self._is_in_file(key)) for key in self._added_rows)
            return len(self._keys) + len(self._added_rows) - replaced

    def find_missing(self, ids: Sequence[str]) -> list[str]:
        """Those of the documents whose vectors are not known, in order."""
        with self._lock:
            rows = self._find_rows(ids).tolist()
        return [each for each, row in zip(ids, rows, strict=True) if row == NONE]

    def add(self, texts: Iterable[tuple[str, str]]) -> int:
        """Encode texts, given with the ids of their documents, and return how many; takes tens of ms for each.

        What was learned of a known id before is replaced. Each text is taken only when the one before it is known, so
        that whoever gives them can stop at any of them.
        """
        count = 0
        for document_id, text in texts:
            vector = self._transformer.encode([text])[0].astype(np.float16)  # the slow part, outside the lock
            with self._lock:
                self._added_rows[stable_hash(document_id)] = len(self._rows)
                self._rows.append(vector)
                self._unsaved_count += 1
            count += 1
        return count

    def cosines(self, query_vector: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
        """The cosine of a question's vector and that of each document; NaN where the document's is not known.

        Nothing is known either of a document whose text had no words. Shape ``(ids,)``.
        """
        with self._lock:
            rows = self._find_rows(ids)
            known = rows != NONE
            vectors = self._rows.take(rows[known])
        cosines = np.full(len(ids), np.nan, np.float32)
        cosines[known] = np.where(vectors.any(axis=1), vectors.astype(np.float32) @ query_vector, np.nan)
        return cosines

    def save(self) -> None:
        """Write all vectors to the file, where there are any that it does not hold; searches and learning go on.

        Raises OSError where the disk refuses: then the next call tries again.
        """
        with self._save_lock:
            with self._lock:
                unsaved = self._unsaved_count
            if not unsaved:
                return
            keys, vectors = self._merge_into_memory()
            meta = {"model": self._transformer.fingerprint}
            write_container(self._path, KIND, VERSION, meta, {"keys": keys, "vectors": vectors})
            with self._lock:
                self._unsaved_count -= unsaved

    def _merge_into_memory(self) -> tuple[_Keys, _Float16s]:
        """Bring file and additions together in memory: nothing is mapped any more, and the file can be replaced."""
        with self._lock:
            keys, base, tail, added = self._keys, self._rows.base, self._rows.tail.copy(), dict(self._added_rows)
        keys, vectors = _merge_arrays(keys, base, tail, added)
        with self._lock:
            added_since = self._rows.tail[len(tail) :].copy()
            snapshot_size = len(base) + len(tail)
            # What was learned meanwhile moves up behind the merged rows.
            self._added_rows = {
                key: row - snapshot_size + len(keys) for key, row in self._added_rows.items() if row >= snapshot_size
            }
            self._keys, self._rows = keys, GrowingArray(vectors)
            for vector in added_since:
                self._rows.append(vector)
        return keys, vectors

    def _find_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each document, or `NONE`. Asked under the lock."""
        keys = [stable_hash(each) for each in ids]
        rows = np.array([self._added_rows.get(key, NONE) for key in keys], np.int64)
        if len(self._keys):
            wanted = np.array(keys, np.uint64)
            positions = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            in_file = (self._keys[positions] == wanted) & (rows == NONE)
            rows[in_file] = positions[in_file]
        return rows

    def _is_in_file(self, key: int) -> bool:
        position = int(np.searchsorted(self._keys, np.uint64(key)))
        return position < len(self._keys) and int(self._keys[position]) == key

    def _load_file(self) -> tuple[_Keys, _Float16s]:
        """What the file holds; nothing where it is of no use."""
        try:
            return self._open_file()
        except FileNotFoundError:
            pass
        except (OSError, ContainerError) as error:  # the path would name the caller
            log.warning(
                "kept vectors are of no use, they are made anew: action=vectors_refused why=%s", _describe_error(error)
            )
        return np.zeros(0, np.uint64), np.zeros((0, self._transformer.dimensions), np.float16)

    def _open_file(self) -> tuple[_Keys, _Float16s]:
        file = Container(self._path, KIND, VERSION)
        if file.meta.get("model") != self._transformer.fingerprint:
            raise ContainerError("another model made it")
        file.verify()
        keys, vectors = file.get_array("keys"), file.get_array("vectors")
        fits = keys.dtype == np.uint64 and vectors.dtype == np.float16
        if not fits or vectors.shape != (*keys.shape, self._transformer.dimensions):
            raise ContainerError("its arrays don't belong together")
        return keys, vectors


def _merge_arrays(keys: _Keys, base: _Float16s, tail: _Float16s, added: Mapping[int, int]) -> tuple[_Keys, _Float16s]:
    """All keys in order, and their vectors; what was added goes before what the file holds."""
    added_keys = np.array(list(added), np.uint64)
    added_rows = np.array(list(added.values()), np.int64) - len(base)
    is_kept = ~np.isin(keys, added_keys)
    all_keys = np.concatenate([keys[is_kept], added_keys])
    order = np.argsort(all_keys)
    return all_keys[order], np.concatenate([base[is_kept], tail[added_rows]])[order]


def _describe_error(error: Exception) -> str:
    return type(error).__name__ + (f" errno={error.errno}" if isinstance(error, OSError) else "")
