"""What the kernel is asked and what it answers, the same for both."""

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.items import NONE, GrowingArray

# Of scratch memory for each item: four numbers with a point and three without. All of it is zero between two calls.
SCRATCH_BYTES = 28

Ordinals = NDArray[np.int32]
Scores = NDArray[np.float32]


@attrs.frozen
class KernelRequest:
    """Score the items that hold some words, or are given a bonus, and keep the best.

    ``postings`` are ``(word, items, counts, first, weight)``: a word of the question (those of one word stand together;
    several are the word itself and its neighbours, of which the best counts), the numbers of the items that hold the
    term, counted from ``first``, how often each does (bytes), and the weight of the term.

    A word's impact on an item is the BM25 one. An item's ``pooled`` sum adds up, for each word, the best impact on it
    or on those around it in its group, a step away weakened by ``decays[0]`` and so on. The score is this sum with its
    weight, the bonus, and ``speaker_weight`` where the item's speaker is ``speaker``. ``speaker``, ``only_group`` and
    ``without_group`` are `NONE` where nobody asked.
    ``linked`` may be false where no item has neighbours, ``removed`` where none was removed: then less is looked at.
    """

    items: GrowingArray
    postings: list[tuple[int, Any, Any, int, float]]
    scratch: "NDArray[np.uint8]"
    average_length: float
    limit: int
    k1: float
    b: float
    decays: Sequence[float]
    pooled_weight: float
    speaker: int = NONE
    speaker_weight: float = 0.0
    only_group: int = NONE
    exclude_group: int = NONE
    has_neighbors: bool = True
    has_removed: bool = True
    bonus_items: Ordinals = attrs.field(factory=lambda: np.zeros(0, np.int32))
    bonuses: Scores = attrs.field(factory=lambda: np.zeros(0, np.float32))


@attrs.frozen
class KernelResult:
    """The best items by their score (the older first among equals), in no order, with the sum and bonus of each."""

    items: Ordinals
    pooled: Scores
    bonus: Scores


@attrs.frozen
class RankRequest:
    """Look again at what was found, by all terms, and put it in order.

    ``question`` is the vector of the question, as long as those of the items (``vectors``), or empty where nothing is
    known of it. ``cues`` are bits of `ITEM`'s, each with what it is worth.
    """

    items: GrowingArray
    vectors: GrowingArray
    candidates: KernelResult
    query_vector: Scores
    pooled_weight: float
    meaning_weight: float
    speaker: int
    speaker_weight: float
    cue_weights: Sequence[tuple[int, float]]


RankedItems = list[tuple[int, float]]  # items with their scores, the best first, the older first among equals
