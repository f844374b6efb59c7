"""The store: documents with all that searching needs of them, those of a file and those that came since.

Documents are numbered in the order in which they were added; a document that was removed keeps its number until the
store is written to a file. Not thread-safe: the index locks.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import fold, term_ids, words
from memoair_index.container import ContainerError
from memoair_index.cues import cues_of
from memoair_index.document import Document
from memoair_index.id_map import IdArrays, IdMap
from memoair_index.items import ITEM, NONE, Array, GrowingArray
from memoair_index.labels import LabelArrays, Labels, LabelSnapshot
from memoair_index.postings import PostingArrays, Postings, PostingSnapshot
from memoair_index.static_model import Embedding

_FULL_SCALE = 127
_KEPT_DOCUMENTS = 512


class StoredDocument(msgspec.Struct, frozen=True, array_like=True):
    """A document as it lies in a file."""

    id: str
    text: str
    group: str
    speaker: str
    occurred_at: float | None
    labels: tuple[str, ...]
    metadata: dict[str, Any]


_to_bytes = msgspec.json.Encoder().encode  # a number of metadata may be larger than MessagePack knows any
_from_bytes = msgspec.json.Decoder(StoredDocument).decode


@attrs.frozen
class AnalyzedDocument:
    """A document and what was read out of it; made outside of every lock."""

    document: Document
    counts: Mapping[int, int]  # how often each term stands in it
    length: int
    cues: int
    vector: NDArray[np.int8]
    scale: float


def analyze(given: list[Document], model: Embedding) -> list[AnalyzedDocument]:
    """Read out of documents what searching needs; what of them can't be written to a file is put right."""
    documents = [_sound_document(document) for document in given]
    folded = [fold(document.text) for document in documents]
    spoken = [words(text) for text in folded]
    vectors = np.nan_to_num(model.encode(spoken), nan=0.0, posinf=0.0, neginf=0.0)
    scales = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(_FULL_SCALE)
    rows = np.round(vectors / np.where(scales > 0, scales, 1)[:, None]).clip(-_FULL_SCALE, _FULL_SCALE).astype(np.int8)
    result = []
    for number, document in enumerate(documents):
        ids = term_ids(spoken[number])
        cues = int(cues_of(folded[number]))
        result.append(AnalyzedDocument(document, Counter(ids), len(ids), cues, rows[number], float(scales[number])))
    return result


@attrs.frozen
class StoreArrays:
    """A store as it lies in a file: none of its documents was removed."""

    items: Array
    length: int  # terms of all documents
    linked: bool  # whether any document has neighbours
    vectors: NDArray[np.int8]
    terms: PostingArrays
    labels: LabelArrays
    ids: IdArrays
    groups: IdArrays  # to the number of a group
    group_ends: NDArray[np.int32]  # the last item of each group, by its number
    speakers: list[str]
    records: NDArray[np.uint8]
    record_starts: NDArray[np.int64]

    @classmethod
    def empty(cls, dimensions: int) -> "StoreArrays":
        """A store without documents."""
        none = IdArrays(np.zeros(0, np.uint64), np.zeros(0, np.int32))
        return cls(
            items=np.zeros(0, ITEM),
            length=0,
            linked=False,
            vectors=np.zeros((0, dimensions), np.int8),
            terms=PostingArrays.empty(),
            labels=LabelArrays.empty(),
            ids=none,
            groups=none,
            group_ends=np.zeros(0, np.int32),
            speakers=[],
            records=np.zeros(0, np.uint8),
            record_starts=np.zeros(1, np.int64),
        )


class Store:
    """Documents, by number. What it hands out stays true until the next change, but for documents: they stay."""

    def __init__(self, base: StoreArrays) -> None:
        self._base = base
        split = len(base.items)
        self.items = GrowingArray(base.items)
        self.vectors = GrowingArray(base.vectors)
        self.terms = Postings(base.terms, split)
        self.labels = Labels(base.labels, split)
        self._ids = IdMap(base.ids)
        self._groups = IdMap(base.groups)
        self._group_ends = GrowingArray(base.group_ends)
        self._speakers = {name: number for number, name in enumerate(base.speakers)}
        self._added: list[Document] = []
        self.live = split
        self.live_length = base.length
        self.linked = base.linked  # whether any document has, or once had, neighbours
        self._decoded: dict[int, Document] = {}  # of the file; a call asks for the same ones again and again

    @property
    def average_length(self) -> float:
        """The mean number of terms of a document; at least 1."""
        return max(1.0, self.live_length / self.live) if self.live else 1.0

    @property
    def tail(self) -> int:
        """How many documents were added since the file was written, those removed again included."""
        return len(self._added)

    def number_of(self, document_id: str) -> int:
        """The number of a document, or `NONE`."""
        number = self._ids.find(document_id)
        if number == NONE:
            return NONE
        array, place = self.items.part(self._checked(number))
        return number if int(array["group"][place]) >= 0 else NONE

    def group_of(self, group: str) -> int:
        """The number of a group, or `NONE` where no document was ever in it."""
        number = self._groups.find(group)
        if not NONE <= number < len(self._group_ends):
            raise ContainerError("an index file is damaged: a group has no place")
        return number

    def speaker_of(self, speaker: str) -> int:
        """The number of a speaker, or `NONE`."""
        return self._speakers.get(speaker, NONE)

    def document(self, number: int) -> Document:
        """The document of a number that was not removed."""
        split = len(self._base.items)
        if number >= split:
            return self._added[number - split]
        document = self._decoded.get(number)
        if document is None:
            if len(self._decoded) >= _KEPT_DOCUMENTS:
                self._decoded.clear()
            start, end = self._base.record_starts[number : number + 2].tolist()
            record = _read(self._base.records[start:end].data)
            document = self._decoded[number] = Document(*msgspec.structs.astuple(record))
        return document

    def numbers(self) -> list[int]:
        """The numbers of all documents that stand."""
        standing: list[int] = np.flatnonzero(self.items.all()["group"] >= 0).tolist()
        return standing

    def backwards(self, number: int) -> Iterator[int]:
        """The numbers of a document and of those before it in its group, the nearest first."""
        return self._walk(number, "previous")

    def forwards(self, number: int) -> Iterator[int]:
        """The numbers of a document and of those behind it in its group, the nearest first."""
        return self._walk(number, "following")

    def end_of(self, group: int) -> int:
        """The last document of a group, or `NONE` where none is left."""
        array, place = self._group_ends.part(group)
        end = int(array[place])
        return end if end == NONE else self._checked(end)

    def add(self, analysed: AnalyzedDocument) -> None:
        """Add a document; one of the same id goes first."""
        document = analysed.document
        self.remove(document.id)
        number = len(self.items)
        group = self.group_of(document.group)
        if group == NONE:
            group = len(self._group_ends)
            self._groups.set(document.group, group)
            self._group_ends.append(NONE)
        previous = self.end_of(group)
        if previous != NONE:
            self._set(previous, "following", number)
            self.linked = True
        self._set_end(group, number)
        row = np.zeros((), ITEM)
        row["occurred_at"] = math.nan if document.occurred_at is None else document.occurred_at
        row["group"], row["previous"], row["following"] = group, previous, NONE
        row["speaker"] = self._speakers.setdefault(document.speaker, len(self._speakers)) if document.speaker else NONE
        row["length"], row["cues"], row["scale"] = analysed.length, analysed.cues, analysed.scale
        self.items.append(row)
        self.vectors.append(analysed.vector)
        self.terms.add(number, analysed.counts)
        self.labels.add(number, document.labels)
        self._ids.set(document.id, number)
        self._added.append(document)
        self.live += 1
        self.live_length += analysed.length

    def remove(self, document_id: str) -> bool:
        """Take a document away; tell whether it was there."""
        number = self.number_of(document_id)
        if number == NONE:
            return False
        document = self.document(number)
        array, place = self.items.part(number)
        item = array[place]
        previous, following, group = (int(item[field]) for field in ("previous", "following", "group"))
        if previous != NONE:
            self._set(self._checked(previous), "following", following)
        if following != NONE:
            self._set(self._checked(following), "previous", previous)
        else:
            self._set_end(group, previous)
        array["group"][place] = array["previous"][place] = array["following"][place] = NONE
        self.terms.remove(term_ids(words(fold(document.text))))
        self.labels.remove(document.labels)
        self._ids.set(document_id, NONE)
        self.live -= 1
        self.live_length -= int(item["length"])
        return True

    def snapshot(self) -> "StoreSnapshot":
        """The store as it is now, untouched by later changes; takes some milliseconds for each 10,000 documents."""
        return StoreSnapshot(
            self._base,
            np.array(self.items.all()),
            np.array(self.vectors.tail),
            list(self._added),
            self.terms.snapshot(),
            self.labels.snapshot(),
            list(self._speakers),
        )

    def _walk(self, number: int, link: str) -> Iterator[int]:
        for _ in range(len(self.items) + 1):
            if number == NONE:
                return
            yield number
            array, place = self.items.part(number)
            number = int(array[link][place])
            number = number if number == NONE else self._checked(number)
        raise ContainerError("an index file is damaged: neighbours lead in a circle")

    def _checked(self, number: int) -> int:
        if not 0 <= number < len(self.items):
            raise ContainerError("an index file is damaged: a document has no place")
        return number

    def _set(self, number: int, field: str, value: int) -> None:
        array, place = self.items.part(number)
        array[field][place] = value

    def _set_end(self, group: int, number: int) -> None:
        if not 0 <= group < len(self._group_ends):
            raise ContainerError("an index file is damaged: a group has no place")
        array, place = self._group_ends.part(group)
        array[place] = number


@attrs.frozen
class StoreSnapshot:
    """A store at one moment; safe to use from any thread."""

    base: StoreArrays
    items: Array
    tail_vectors: NDArray[np.int8]
    added: list[Document]
    terms: PostingSnapshot
    labels: LabelSnapshot
    speakers: list[str]

    def compacted(self) -> StoreArrays:
        """The same without the documents that were removed, renumbered, ready to be written."""
        stands = self.items["group"] >= 0
        numbers = np.where(stands, np.cumsum(stands) - 1, NONE).astype(np.int64)
        items = self.items[stands]
        for link in ("previous", "following"):
            items[link] = np.where(items[link] >= 0, numbers[items[link]], NONE)
        documents, records = self._records(stands)
        groups = list(dict.fromkeys(document.group for document in documents))
        group_numbers = {group: number for number, group in enumerate(groups)}
        items["group"] = [group_numbers[document.group] for document in documents]
        ends = np.full(len(groups), NONE, np.int32)
        last = items["following"] == NONE
        ends[items["group"][last]] = np.flatnonzero(last)
        return StoreArrays(
            items=items,
            length=int(items["length"].sum()),
            linked=bool((items["following"] != NONE).any()),
            vectors=np.concatenate([self.base.vectors, self.tail_vectors])[stands],
            terms=self.terms.merged(numbers),
            labels=self.labels.merged(numbers),
            ids=IdArrays.of([document.id for document in documents], list(range(len(documents)))),
            groups=IdArrays.of(groups, list(range(len(groups)))),
            group_ends=ends,
            speakers=self.speakers,
            records=np.frombuffer(b"".join(records), np.uint8),
            record_starts=np.cumsum([0, *map(len, records)], dtype=np.int64),
        )

    def _records(self, stands: NDArray[np.bool_]) -> tuple[list[StoredDocument], list[bytes]]:
        """The documents that stand, and each as it goes into a file."""
        split = len(self.base.items)
        starts = self.base.record_starts.tolist()
        records, encoded = [], []
        for number in np.flatnonzero(stands).tolist():
            if number < split:
                content = self.base.records[starts[number] : starts[number + 1]].tobytes()
                record = _read(content)
            else:
                record = _record(self.added[number - split])
                content = _to_bytes(record)
            records.append(record)
            encoded.append(content)
        return records, encoded


def _read(content: bytes | memoryview) -> StoredDocument:
    try:
        return _from_bytes(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ContainerError("a record of an index file is damaged") from None


def _record(document: Document) -> StoredDocument:
    return StoredDocument(
        document.id,
        document.text,
        document.group,
        document.speaker,
        document.occurred_at,
        document.labels,
        dict(document.metadata),
    )


def _sound_document(document: Document) -> Document:
    names = (document.id, document.text, document.group, document.speaker, *document.labels)
    if all(map(str.isascii, names)) and not document.metadata:
        return document
    return Document(
        sound(document.id),
        sound(document.text),
        sound(document.group),
        sound(document.speaker),
        document.occurred_at,
        sound(tuple(document.labels)),
        sound(dict(document.metadata)),
    )


def sound(value: Any) -> Any:
    """A value that can be written: lone surrogates, as a broken transcriber may send them, become question marks."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {sound(key): sound(each) for key, each in value.items()}
    return type(value)(map(sound, value)) if isinstance(value, list | tuple) else value
