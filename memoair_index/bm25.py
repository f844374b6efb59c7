"""Okapi BM25, in the form with the idf that never turns negative (Robertson and Zaragoza, 2009; Lucene)."""

import math

import numpy as np
from numpy.typing import NDArray

from memoair_index.postings import Postings

# Utterances are short and of one subject: a word said twice says little more than once, and length hardly matters.
# Chosen on the LoCoMo development half; the optimum is flat.
K1 = 0.8
B = 0.2


def idf(documents: int, document_frequency: int) -> float:
    """The weight of a term that stands in ``document_frequency`` of ``documents``; always positive."""
    return math.log1p((documents - document_frequency + 0.5) / (document_frequency + 0.5))


def scores(postings: Postings, terms: list[str]) -> NDArray[np.float32]:
    """Score every document ever added against the query's terms, repeated ones counted once; shape ``(size,)``."""
    total = np.zeros(postings.size, np.float32)
    known = [term for term in dict.fromkeys(terms) if postings.document_frequency(term)]
    if not known:
        return total
    norm = K1 * (1 - B + B * postings.lengths() / max(postings.average_length, 1e-9))
    for term in known:
        ordinals, frequencies = postings.of(term)
        weight = idf(len(postings), postings.document_frequency(term)) * (K1 + 1)
        # A term's ordinals are distinct, so this adds to each document once.
        total[ordinals] += weight * frequencies / (frequencies + norm[ordinals])
    return total
