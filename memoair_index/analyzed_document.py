"""Analyzed documents: everything that a search needs of a document, computed before the index is locked."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import document_terms, split_words
from memoair_index.cues import detect_cues
from memoair_index.document import Document
from memoair_index.folding import fold
from memoair_index.static_model import Embedding

_INT8_MAX = 127
_encode_json = msgspec.json.Encoder().encode


@attrs.frozen
class AnalyzedDocument:
    """A document and what a search needs of it. Computed outside of all locks."""

    document: Document
    language: str
    term_counts: Mapping[int, int]  # how often each term occurs in it, by term id
    signatures: frozenset[int]  # of the words, for misspellings
    term_count: int  # repetitions included, alternate forms left out
    cues: int  # flags of `memoair_index.cues.Cue`
    vector: NDArray[np.int8]  # the embedding in 8 bits; shape (dimensions,)
    scale: float  # the factor from ``vector`` to the embedding


def analyze(documents: list[Document], embedding: Embedding) -> list[AnalyzedDocument]:
    """Compute what a search needs of some documents, and sanitize text that could not be written to a file."""
    documents = [_sanitize_document(document) for document in documents]
    folded = [fold(document.text) for document in documents]
    words_by_document = [split_words(text) for text in folded]
    vectors = np.nan_to_num(embedding.encode(words_by_document), nan=0.0, posinf=0.0, neginf=0.0)
    scales = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(_INT8_MAX)
    rows = np.round(vectors / np.where(scales > 0, scales, 1)[:, None]).clip(-_INT8_MAX, _INT8_MAX).astype(np.int8)
    analyzed = []
    for i, document in enumerate(documents):
        terms = document_terms(document.text, folded[i], words_by_document[i])
        cues = int(detect_cues(folded[i]))
        scale = float(scales[i])
        counts = Counter(terms.words + terms.forms)
        analyzed.append(
            AnalyzedDocument(document, terms.language, counts, terms.signatures, len(terms.words), cues, rows[i], scale)
        )
    return analyzed


def _sanitize_document(document: Document) -> Document:
    strings = (document.id, document.text, document.group, document.speaker, *document.labels)
    try:
        _encode_json((strings, document.metadata))
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError):
        pass
    else:  # true of nearly all, and ten times as fast as the rest
        return document
    return Document(
        sanitize(document.id),
        sanitize(document.text),
        sanitize(document.group),
        sanitize(document.speaker),
        document.occurred_at,
        sanitize(tuple(document.labels)),
        sanitize(dict(document.metadata)),
    )


def sanitize(value: Any) -> Any:
    """Return a value that can be encoded: lone surrogates, which a faulty recognizer sends, become question marks."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {sanitize(key): sanitize(item) for key, item in value.items()}
    return type(value)(map(sanitize, value)) if isinstance(value, list | tuple) else value
