"""Vectors of documents by a transformer, kept in a file, so that each text is encoded once.

The file is a cache: it may be lost at any time. A file that is damaged, or that another model made, is discarded and
rebuilt. It holds no texts, and ids only as 64-bit hashes.
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
from memoair_protocol.private_files import check_private_file
from memoair_protocol.starvation import raise_if_starved

log = logging.getLogger(__name__)

KIND = "memoair text vectors"
VERSION = 1

_Keys = NDArray[np.uint64]
_Float16s = NDArray[np.float16]


class VectorStore:
    """Vectors by document id, as 16-bit floats: those of a file, mapped, and those added since, in memory.

    Thread-safe. Added vectors are on disk after the next `save`. If two processes save to one file, the later save
    wins.
    """

    def __init__(self, path: Path, transformer: Transformer) -> None:
        """Open the file, whatever its content; its folder must exist by the time of `save`."""
        self._path = path
        self._transformer = transformer
        self._lock = threading.Lock()
        self._save_lock = threading.Lock()
        self._keys, vectors = self._load_file()  # sorted; the position of a key is its row
        self._rows = GrowingArray(vectors)
        self._added_rows: dict[int, int] = {}  # by key: rows added since, which take precedence over those of the file
        self._unsaved_count = 0

    @property
    def unsaved_count(self) -> int:
        """The number of added vectors that are not in the file yet."""
        with self._lock:
            return self._unsaved_count

    def __len__(self) -> int:
        """Return the number of documents with a vector."""
        with self._lock:
            replaced = sum(bool(self._is_in_file(key)) for key in self._added_rows)
            return len(self._keys) + len(self._added_rows) - replaced

    def find_missing(self, ids: Sequence[str]) -> list[str]:
        """Return the ids of the documents without a vector, in order."""
        with self._lock:
            rows = self._find_rows(ids).tolist()
        return [document_id for document_id, row in zip(ids, rows, strict=True) if row == NONE]

    def add(self, texts: Iterable[tuple[str, str]]) -> int:
        """Encode texts and keep their vectors, which takes tens of milliseconds per text.

        Args:
            texts: Pairs of document id and text. Each is consumed only after the one before it is stored, so that the
                iterable can stop at any point. A vector that exists already is replaced.

        Returns:
            The number of texts.
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
        """Return the cosine of a question's vector and each document's; shape ``(ids,)``.

        It is NaN for a document without a vector, and for one whose text had no words.
        """
        with self._lock:
            rows = self._find_rows(ids)
            known = rows != NONE
            vectors = self._rows.take(rows[known])
        cosines = np.full(len(ids), np.nan, np.float32)
        cosines[known] = np.where(vectors.any(axis=1), vectors.astype(np.float32) @ query_vector, np.nan)
        return cosines

    def save(self) -> None:
        """Write all vectors to the file, if any was added; searches and additions continue during the write.

        Raises:
            OSError: Writing failed; the next call tries again.
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
        """Merge file and additions in memory: nothing stays mapped, so that the file can be replaced."""
        with self._lock:
            keys, base, tail, added = self._keys, self._rows.base, self._rows.tail.copy(), dict(self._added_rows)
        keys, vectors = _merge_arrays(keys, base, tail, added)
        with self._lock:
            added_since = self._rows.tail[len(tail) :].copy()
            old_size = len(base) + len(tail)
            # Rows that were added during the merge move to the end of the merged rows.
            self._added_rows = {
                key: row - old_size + len(keys) for key, row in self._added_rows.items() if row >= old_size
            }
            self._keys, self._rows = keys, GrowingArray(vectors)
            for vector in added_since:
                self._rows.append(vector)
        return keys, vectors

    def _find_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each document, or `NONE`. Requires the lock."""
        keys = [stable_hash(document_id) for document_id in ids]
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
        """Return the content of the file; empty arrays if it is missing or unusable.

        Raises:
            OSError: If it cannot be opened for want of descriptors or memory: it must not be replaced then.
        """
        try:
            return self._open_file()
        except FileNotFoundError:
            pass  # nothing has been cached yet
        except (OSError, ContainerError) as error:  # the path would reveal the user
            raise_if_starved(error)
            log.warning(
                "the vector cache is unusable and will be rebuilt: action=vectors_refused why=%s",
                _describe_error(error),
            )
        return np.zeros(0, np.uint64), np.zeros((0, self._transformer.dimensions), np.float16)

    def _open_file(self) -> tuple[_Keys, _Float16s]:
        check_private_file(self._path)
        file = Container(self._path, KIND, VERSION)
        if file.meta.get("model") != self._transformer.fingerprint:
            raise ContainerError("another model made it")
        file.verify()
        keys, vectors = file.get_array("keys", np.uint64), file.get_array("vectors", np.float16, 2)
        if vectors.shape != (*keys.shape, self._transformer.dimensions):
            raise ContainerError("the arrays do not fit together")
        return keys, vectors


def _merge_arrays(keys: _Keys, base: _Float16s, tail: _Float16s, added: Mapping[int, int]) -> tuple[_Keys, _Float16s]:
    """Return all keys in order, and their vectors; additions take precedence over the file."""
    added_keys = np.array(list(added), np.uint64)
    added_rows = np.array(list(added.values()), np.int64) - len(base)
    is_kept = ~np.isin(keys, added_keys)
    all_keys = np.concatenate([keys[is_kept], added_keys])
    order = np.argsort(all_keys)
    return all_keys[order], np.concatenate([base[is_kept], tail[added_rows]])[order]


def _describe_error(error: Exception) -> str:
    return type(error).__name__ + (f" errno={error.errno}" if isinstance(error, OSError) else "")
