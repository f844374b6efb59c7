"""The store: documents with everything that a search needs of them, in a file and in memory.

A document's ordinal is its place in the order in which documents were added. A removed document keeps its ordinal until
the store is written to a file. Not thread-safe: the index locks.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import document_terms, split_words
from memoair_index.analyzed_document import AnalyzedDocument
from memoair_index.container import ContainerError, check_range
from memoair_index.document import Document
from memoair_index.folding import fold
from memoair_index.id_map import IdArrays, IdMap
from memoair_index.items import ITEM_DTYPE, NONE, Array, GrowingArray
from memoair_index.labels import LabelArrays, Labels, LabelSnapshot
from memoair_index.misspellings import NO_SIGNATURES, Signatures, SignatureSet
from memoair_index.postings import PostingArrays, Postings, PostingSnapshot

_MAX_CACHED_DOCUMENTS = 512


class StoredDocument(msgspec.Struct, frozen=True, array_like=True):
    """A document as it is stored in a file: a JSON array, so the order of the fields is part of the format."""

    id: str
    text: str
    group: str
    speaker: str
    occurred_at: float | None
    labels: tuple[str, ...]
    metadata: dict[str, Any]


_encode_json = msgspec.json.Encoder().encode  # JSON, because metadata may hold larger integers than MessagePack allows
_decode_json = msgspec.json.Decoder(StoredDocument).decode


@attrs.frozen
class StoreArrays:
    """A store as it is kept in a file, without removed documents.

    Attributes:
        items: A record of `ITEM_DTYPE` for each document; shape ``(documents,)``.
        languages: The number of documents in each language.
        total_length: The number of terms of all documents.
        has_neighbors: Whether any document has a neighbor in its group.
        vectors: The embeddings in 8 bits; shape ``(documents, dimensions)``.
        terms: From a term to the documents that contain it.
        signatures: The signatures of all words, sorted; see `memoair_index.misspellings`.
        labels: The labels of the documents.
        ids: From a document id to its ordinal.
        groups: From a group's name to its id.
        group_ends: The ordinal of the last document of each group, by group id.
        speakers: The names of the speakers, by speaker id.
        records: The documents as JSON, one after another.
        record_starts: The record of document ``i`` is ``records[record_starts[i]:record_starts[i + 1]]``.
    """

    items: Array
    languages: Mapping[str, int]
    total_length: int
    has_neighbors: bool
    vectors: NDArray[np.int8]
    terms: PostingArrays
    signatures: Signatures
    labels: LabelArrays
    ids: IdArrays
    groups: IdArrays
    group_ends: NDArray[np.int32]
    speakers: list[str]
    records: NDArray[np.uint8]
    record_starts: NDArray[np.int64]

    @classmethod
    def empty(cls, dimensions: int) -> "StoreArrays":
        """Return the arrays of a store without documents."""
        no_ids = IdArrays(np.zeros(0, np.uint64), np.zeros(0, np.int32))
        return cls(
            items=np.zeros(0, ITEM_DTYPE),
            languages={},
            total_length=0,
            has_neighbors=False,
            vectors=np.zeros((0, dimensions), np.int8),
            terms=PostingArrays.empty(),
            signatures=NO_SIGNATURES,
            labels=LabelArrays.empty(),
            ids=no_ids,
            groups=no_ids,
            group_ends=np.zeros(0, np.int32),
            speakers=[],
            records=np.zeros(0, np.uint8),
            record_starts=np.zeros(1, np.int64),
        )


class Store:
    """Documents by ordinal. Arrays that it returns are valid until the next change; `Document` objects stay valid."""

    def __init__(self, base: StoreArrays) -> None:
        self._base = base
        base_size = len(base.items)
        self.items = GrowingArray(base.items)
        self.vectors = GrowingArray(base.vectors)
        self.terms = Postings(base.terms, base_size)
        self.signatures = SignatureSet(base.signatures)
        self.labels = Labels(base.labels, base_size, self.items, self.terms)
        self._ids = IdMap(base.ids)
        self._groups = IdMap(base.groups)
        self._group_ends = GrowingArray(base.group_ends)
        self._speaker_ids = {name: speaker_id for speaker_id, name in enumerate(base.speakers)}
        self._languages = Counter(base.languages)
        self._added: list[Document] = []
        self.live_count = base_size
        self.live_length = base.total_length
        self.has_neighbors = base.has_neighbors  # whether any document has, or once had, a neighbor
        self._document_cache: dict[int, Document] = {}  # of the file; the searches of a call read the same ones again

    @property
    def average_length(self) -> float:
        """The mean number of terms per document, at least 1."""
        return max(1.0, self.live_length / self.live_count) if self.live_count else 1.0

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the documents, the commonest first."""
        return tuple(language for language, count in self._languages.most_common() if count > 0)

    @property
    def added_count(self) -> int:
        """The number of documents added since the file was written, including those removed again."""
        return len(self._added)

    def find_ordinal(self, document_id: str) -> int:
        """Return the ordinal of a document, or `NONE`."""
        ordinal = self._ids.get(document_id)
        if ordinal == NONE:
            return NONE
        array, position = self.items.locate(self._check_ordinal(ordinal))
        return ordinal if int(array["group"][position]) >= 0 else NONE

    def find_group(self, group: str) -> int:
        """Return the id of a group, or `NONE` if no document was ever in it."""
        group_id = self._groups.get(group)
        if not NONE <= group_id < len(self._group_ends):
            raise ContainerError("the index file is damaged: a group id is out of range")
        return group_id

    def find_speaker(self, speaker: str) -> int:
        """Return the id of a speaker, or `NONE`."""
        return self._speaker_ids.get(speaker, NONE)

    def get_document(self, ordinal: int) -> Document:
        """Return a document that was not removed."""
        base_size = len(self._base.items)
        if ordinal >= base_size:
            return self._added[ordinal - base_size]
        document = self._document_cache.get(ordinal)
        if document is None:
            if len(self._document_cache) >= _MAX_CACHED_DOCUMENTS:
                self._document_cache.clear()
            start, end = self._base.record_starts[ordinal : ordinal + 2].tolist()
            record = _decode_record(self._base.records[start:end].data)
            document = self._document_cache[ordinal] = Document(*msgspec.structs.astuple(record))
        return document

    def live_ordinals(self) -> list[int]:
        """Return the ordinals of all documents that were not removed."""
        ordinals: list[int] = np.flatnonzero(self.items.to_array()["group"] >= 0).tolist()
        return ordinals

    def walk_backward(self, ordinal: int) -> Iterator[int]:
        """Yield the ordinals of a document and of those before it in its group, the nearest first."""
        return self._walk(ordinal, "previous")

    def walk_forward(self, ordinal: int) -> Iterator[int]:
        """Yield the ordinals of a document and of those after it in its group, the nearest first."""
        return self._walk(ordinal, "following")

    def last_in_group(self, group_id: int) -> int:
        """Return the ordinal of the last document of a group, or `NONE` if the group is empty."""
        array, position = self._group_ends.locate(group_id)
        last = int(array[position])
        return last if last == NONE else self._check_ordinal(last)

    def add(self, analyzed: AnalyzedDocument) -> None:
        """Add a document, and remove an earlier one of the same id."""
        document = analyzed.document
        self.remove(document.id)
        ordinal = len(self.items)
        group_id = self.find_group(document.group)
        if group_id == NONE:
            group_id = len(self._group_ends)
            self._groups.set(document.group, group_id)
            self._group_ends.append(NONE)
        previous = self.last_in_group(group_id)
        if previous != NONE:
            self._set_field(previous, "following", ordinal)
            self.has_neighbors = True
        self._set_group_end(group_id, ordinal)
        speaker = self._speaker_ids.setdefault(document.speaker, len(self._speaker_ids)) if document.speaker else NONE
        occurred_at = math.nan if document.occurred_at is None else document.occurred_at
        # The fields in the order of `ITEM_DTYPE`: one assignment takes a sixth of the time of one for each.
        links = (group_id, previous, NONE, speaker)
        self.items.append((occurred_at, *links, analyzed.term_count, analyzed.cues, analyzed.scale, 0))
        self.vectors.append(analyzed.vector)
        self.terms.add(ordinal, analyzed.term_counts)
        self.signatures.update(analyzed.signatures)
        self.labels.add(ordinal, document.labels)
        self._languages[analyzed.language] += 1
        self._ids.set(document.id, ordinal)
        self._added.append(document)
        self.live_count += 1
        self.live_length += analyzed.term_count

    def remove(self, document_id: str) -> bool:
        """Remove a document and return whether it existed."""
        ordinal = self.find_ordinal(document_id)
        if ordinal == NONE:
            return False
        document = self.get_document(ordinal)
        array, position = self.items.locate(ordinal)
        item = array[position]
        previous, following, group_id = (int(item[field]) for field in ("previous", "following", "group"))
        if previous != NONE:
            self._set_field(self._check_ordinal(previous), "following", following)
        if following != NONE:
            self._set_field(self._check_ordinal(following), "previous", previous)
        else:
            self._set_group_end(group_id, previous)
        array["group"][position] = array["previous"][position] = array["following"][position] = NONE
        folded = fold(document.text)
        terms = document_terms(document.text, folded, split_words(folded))
        self._languages[terms.language] -= 1
        self.terms.remove(terms.words + terms.forms)
        self.labels.remove(document.labels)
        self._ids.set(document_id, NONE)
        self.live_count -= 1
        self.live_length -= int(item["length"])
        return True

    def snapshot(self) -> "StoreSnapshot":
        """Return the store as it is now, unaffected by later changes. Takes some milliseconds per 10,000 documents."""
        return StoreSnapshot(
            self._base,
            np.array(self.items.to_array()),
            np.array(self.vectors.tail),
            list(self._added),
            self.terms.snapshot(),
            self.signatures.to_array(),
            self.labels.snapshot(),
            list(self._speaker_ids),
            {language: count for language, count in self._languages.items() if count > 0},
        )

    def _walk(self, ordinal: int, link: str) -> Iterator[int]:
        for _ in range(len(self.items) + 1):
            if ordinal == NONE:
                return
            yield ordinal
            array, position = self.items.locate(ordinal)
            ordinal = int(array[link][position])
            ordinal = ordinal if ordinal == NONE else self._check_ordinal(ordinal)
        raise ContainerError("the index file is damaged: the neighbors of a group form a cycle")

    def _check_ordinal(self, ordinal: int) -> int:
        if not 0 <= ordinal < len(self.items):
            raise ContainerError("the index file is damaged: a document's ordinal is out of range")
        return ordinal

    def _set_field(self, ordinal: int, field: str, value: int) -> None:
        array, position = self.items.locate(ordinal)
        array[field][position] = value

    def _set_group_end(self, group_id: int, ordinal: int) -> None:
        if not 0 <= group_id < len(self._group_ends):
            raise ContainerError("the index file is damaged: a group id is out of range")
        array, position = self._group_ends.locate(group_id)
        array[position] = ordinal


@attrs.frozen
class StoreSnapshot:
    """A store at one moment. Thread-safe."""

    base: StoreArrays
    items: Array
    tail_vectors: NDArray[np.int8]
    added: list[Document]
    terms: PostingSnapshot
    signatures: Signatures
    labels: LabelSnapshot
    speakers: list[str]
    languages: Mapping[str, int]

    def compact(self) -> StoreArrays:
        """Return the arrays to write: without removed documents, under new ordinals."""
        is_live = self.items["group"] >= 0
        new_ordinals = np.where(is_live, np.cumsum(is_live) - 1, NONE).astype(np.int64)
        items = self.items[is_live]
        for link in ("previous", "following"):
            is_linked = items[link] >= 0
            linked = check_range(items[link][is_linked], len(new_ordinals))
            items[link] = NONE
            items[link][is_linked] = new_ordinals[linked]
        documents, records = self._encode_records(is_live)
        groups = list(dict.fromkeys(document.group for document in documents))
        group_ids = {group: group_id for group_id, group in enumerate(groups)}
        items["group"] = [group_ids[document.group] for document in documents]
        ends = np.full(len(groups), NONE, np.int32)
        is_last = items["following"] == NONE
        ends[items["group"][is_last]] = np.flatnonzero(is_last)
        return StoreArrays(
            items=items,
            languages=self.languages,
            total_length=int(items["length"].sum()),
            has_neighbors=bool((items["following"] != NONE).any()),
            vectors=np.concatenate([self.base.vectors, self.tail_vectors])[is_live],
            terms=self.terms.merge(new_ordinals),
            signatures=self.signatures,
            labels=self.labels.merge(new_ordinals),
            ids=IdArrays.build([document.id for document in documents], list(range(len(documents)))),
            groups=IdArrays.build(groups, list(range(len(groups)))),
            group_ends=ends,
            speakers=self.speakers,
            records=np.frombuffer(b"".join(records), np.uint8),
            record_starts=np.cumsum([0, *map(len, records)], dtype=np.int64),
        )

    def _encode_records(self, is_live: NDArray[np.bool_]) -> tuple[list[StoredDocument], list[bytes]]:
        """Return the documents that were not removed, and the encoded record of each."""
        base_size = len(self.base.items)
        starts = self.base.record_starts.tolist()
        records, encoded = [], []
        for ordinal in np.flatnonzero(is_live).tolist():
            if ordinal < base_size:
                content = self.base.records[starts[ordinal] : starts[ordinal + 1]].tobytes()
                record = _decode_record(content)
            else:
                record = _to_record(self.added[ordinal - base_size])
                content = _encode_json(record)
            records.append(record)
            encoded.append(content)
        return records, encoded


def _decode_record(content: bytes | memoryview) -> StoredDocument:
    try:
        return _decode_json(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ContainerError("the index file is damaged: a document's record is invalid") from None


def _to_record(document: Document) -> StoredDocument:
    return StoredDocument(
        document.id,
        document.text,
        document.group,
        document.speaker,
        document.occurred_at,
        document.labels,
        dict(document.metadata),
    )
