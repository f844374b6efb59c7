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

from memoair_index.analysis import identity
from memoair_index.container import Container, ContainerError, write_container
from memoair_index.items import NONE, GrowingArray
from memoair_index.transformer import Transformer

log = logging.getLogger(__name__)

KIND = "memoair text vectors"
VERSION = 1

_Keys = NDArray[np.uint64]
_Halves = NDArray[np.float16]


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
        self._saving = threading.Lock()
        self._keys, vectors = self._read()  # sorted; a key's place is its row
        self._rows = GrowingArray(vectors)
        self._added: dict[int, int] = {}  # the rows of keys that were learned since; they go before those of the file
        self._unsaved = 0

    @property
    def unsaved(self) -> int:
        """How many vectors were learned that no file holds yet."""
        with self._lock:
            return self._unsaved

    def __len__(self) -> int:
        """Count the documents whose vectors are known."""
        with self._lock:
            again = sum(bool(self._is_in_file(key)) for key in self._added)
            return len(self._keys) + len(self._added) - again

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of the documents whose vectors are not known, in order."""
        with self._lock:
            rows = self._find(ids).tolist()
        return [each for each, row in zip(ids, rows, strict=True) if row == NONE]

    def learn(self, texts: Iterable[tuple[str, str]]) -> int:
        """Encode texts, given with the ids of their documents, and return how many; takes tens of ms for each.

        What was learned of a known id before is replaced. Each text is taken only when the one before it is known, so
        that whoever gives them can stop at any of them.
        """
        count = 0
        for document_id, text in texts:
            vector = self._transformer.encode([text])[0].astype(np.float16)  # the slow part, outside the lock
            with self._lock:
                self._added[identity(document_id)] = len(self._rows)
                self._rows.append(vector)
                self._unsaved += 1
            count += 1
        return count

    def cosines(self, question: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
        """The cosine of a question's vector and that of each document; NaN where the document's is not known.

        Nothing is known either of a document whose text had no words. Shape ``(ids,)``.
        """
        with self._lock:
            rows = self._find(ids)
            known = rows != NONE
            vectors = self._rows.take(rows[known])
        cosines = np.full(len(ids), np.nan, np.float32)
        cosines[known] = np.where(vectors.any(axis=1), vectors.astype(np.float32) @ question, np.nan)
        return cosines

    def save(self) -> None:
        """Write all vectors to the file, where there are any that it does not hold; searches and learning go on.

        Raises OSError where the disk refuses: then the next call tries again.
        """
        with self._saving:
            with self._lock:
                unsaved = self._unsaved
            if not unsaved:
                return
            keys, vectors = self._merge()
            meta = {"model": self._transformer.fingerprint}
            write_container(self._path, KIND, VERSION, meta, {"keys": keys, "vectors": vectors})
            with self._lock:
                self._unsaved -= unsaved

    def _merge(self) -> tuple[_Keys, _Halves]:
        """Bring file and additions together in memory: nothing is mapped any more, and the file can be replaced."""
        with self._lock:
            keys, base, tail, added = self._keys, self._rows.base, self._rows.tail.copy(), dict(self._added)
        keys, vectors = _merged(keys, base, tail, added)
        with self._lock:
            came = self._rows.tail[len(tail) :].copy()
            split = len(base) + len(tail)
            # What was learned meanwhile moves up behind the merged rows.
            self._added = {key: row - split + len(keys) for key, row in self._added.items() if row >= split}
            self._keys, self._rows = keys, GrowingArray(vectors)
            for vector in came:
                self._rows.append(vector)
        return keys, vectors

    def _find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each document, or `NONE`. Asked under the lock."""
        keys = [identity(each) for each in ids]
        rows = np.array([self._added.get(key, NONE) for key in keys], np.int64)
        if len(self._keys):
            wanted = np.array(keys, np.uint64)
            places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            in_file = (self._keys[places] == wanted) & (rows == NONE)
            rows[in_file] = places[in_file]
        return rows

    def _is_in_file(self, key: int) -> bool:
        place = int(np.searchsorted(self._keys, np.uint64(key)))
        return place < len(self._keys) and int(self._keys[place]) == key

    def _read(self) -> tuple[_Keys, _Halves]:
        """What the file holds; nothing where it is of no use."""
        try:
            return self._open()
        except FileNotFoundError:
            pass
        except (OSError, ContainerError) as error:  # the path would name the caller
            log.warning("kept vectors are of no use, they are made anew: action=vectors_refused why=%s", _why(error))
        return np.zeros(0, np.uint64), np.zeros((0, self._transformer.dimensions), np.float16)

    def _open(self) -> tuple[_Keys, _Halves]:
        file = Container(self._path, KIND, VERSION)
        if file.meta.get("model") != self._transformer.fingerprint:
            raise ContainerError("another model made it")
        file.verify()
        keys, vectors = file.array("keys"), file.array("vectors")
        fits = keys.dtype == np.uint64 and vectors.dtype == np.float16
        if not fits or vectors.shape != (*keys.shape, self._transformer.dimensions):
            raise ContainerError("its arrays don't belong together")
        return keys, vectors


def _merged(keys: _Keys, base: _Halves, tail: _Halves, added: Mapping[int, int]) -> tuple[_Keys, _Halves]:
    """All keys in order, and their vectors; what was added goes before what the file holds."""
    added_keys = np.array(list(added), np.uint64)
    added_rows = np.array(list(added.values()), np.int64) - len(base)
    stands = ~np.isin(keys, added_keys)
    all_keys = np.concatenate([keys[stands], added_keys])
    order = np.argsort(all_keys)
    return all_keys[order], np.concatenate([base[stands], tail[added_rows]])[order]


def _why(error: Exception) -> str:
    return type(error).__name__ + (f" errno={error.errno}" if isinstance(error, OSError) else "")
