"""Okapi BM25, in the form with the idf that never turns negative (Robertson and Zaragoza, 2009; Lucene)."""

import math

# Utterances are short and of one subject: a word said twice says little more than once, and length hardly matters.
# Chosen on the LoCoMo development half; the optimum is flat.
K1 = 0.8
B = 0.2


def idf(document_count: int, document_frequency: int) -> float:
    """The weight of a term that stands in ``document_frequency`` of ``documents``; always positive."""
    return math.log1p((document_count - document_frequency + 0.5) / (document_frequency + 0.5))
