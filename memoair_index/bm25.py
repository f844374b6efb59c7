"""Okapi BM25 with the idf that never becomes negative (Robertson and Zaragoza, 2009; Lucene)."""

import math
from functools import lru_cache

# Utterances are short and about one subject: a repeated word adds little, and length hardly matters.
# Chosen on the LoCoMo development half; the optimum is flat.
K1 = 0.8
B = 0.2


@lru_cache(maxsize=8_192)
def idf(document_count: int, document_frequency: int) -> float:
    """Return the weight of a term that occurs in ``document_frequency`` of ``document_count`` documents; positive."""
    return math.log1p((document_count - document_frequency + 0.5) / (document_frequency + 0.5))
