"""Requests to the kernel and their results, the same for both implementations. Items are given by their ordinals."""

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.items import NONE, GrowingArray

# Scratch memory per item: five floats and three integers. It is all zero between two calls.
SCRATCH_BYTES = 32

# The position of a word is below this.
MAX_WORD = 2**31 - 1

Ordinals = NDArray[np.int32]
Scores = NDArray[np.float32]


@attrs.frozen
class KernelRequest:
    """Score the items that contain some words or are given a bonus, and keep the best.

    The impact of a word on an item is that of BM25. A word and its neighbors (words of nearly the same meaning) have a
    list of postings each, of which the best impact on an item counts. The pooled sum of an item adds up, for each word,
    the best impact on the item itself or on one near it in its group, weakened by ``decays`` with each step away. There
    are two such sums, one of the words of the question and one of those of the talk. The score is the weighted sums,
    plus the bonus, plus ``speaker_weight`` if the item is by ``speaker``.

    The result is exact: the best items by that score. The C kernel reads no more of long lists than that takes.

    Attributes:
        items: The records of all items.
        postings: Tuples of (word, items, counts, first, weight): a word of the question by its position (lists of the
            same word are adjacent), the ordinals of the items that contain the term (int32, ascending, to which
            ``first`` is added), how often each does (uint8), and the weight of the term.
        scratch: Zeroed memory of at least `SCRATCH_BYTES` per item; zeroed again afterwards.
        average_length: The mean number of terms per item.
        limit: How many items to keep.
        k1: BM25's saturation.
        b: BM25's length normalization.
        decays: The factor of an impact one step away, two steps away and so on.
        pooled_weight: The factor of the question's sum in the score.
        talk_weight: The factor of the talk's sum in the score.
        first_talk_word: This word and those after it are of the talk, those before it of the question.
        speaker: The speaker to prefer, or `NONE`.
        speaker_weight: Added to the score of that speaker's items.
        only_group: Keep only items of this group, or `NONE`.
        exclude_group: Keep no items of this group, or `NONE`.
        has_neighbors: May be False only if no item has a neighbor; that saves time.
        has_removed: May be False only if no item was removed; that saves time.
        labels: Tuples of (items, first, value): the ordinals of the items that bear a label (int32, to which ``first``
            is added), and what the label is worth. The best label of an item is its bonus.
        bonus_items: Items with a further bonus.
        bonuses: The bonus of each; several for one item add up.
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
    talk_weight: float = 0.0
    first_talk_word: int = MAX_WORD
    speaker: int = NONE
    speaker_weight: float = 0.0
    only_group: int = NONE
    exclude_group: int = NONE
    has_neighbors: bool = True
    has_removed: bool = True
    labels: list[tuple[Any, int, float]] = attrs.field(factory=list)
    bonus_items: Ordinals = attrs.field(factory=lambda: np.zeros(0, np.int32))
    bonuses: Scores = attrs.field(factory=lambda: np.zeros(0, np.float32))


@attrs.frozen
class KernelResult:
    """The items with the best scores (the older first among equals), in no order, with the sums and bonus of each."""

    items: Ordinals
    pooled: Scores
    talk: Scores
    bonus: Scores


@attrs.frozen
class RankRequest:
    """Score candidates by all features, and sort them.

    Attributes:
        items: The records of all items.
        vectors: The embeddings of all items in 8 bits.
        candidates: The items to rank, with their pooled sums and bonuses.
        query_vector: The embedding of the question, or empty to leave out the cosine.
        pooled_weight: The factor of the question's sum.
        talk_weight: The factor of the talk's sum.
        meaning_weight: The factor of the cosine.
        speaker: The speaker to prefer, or `NONE`.
        speaker_weight: Added to the score of that speaker's items.
        cue_weights: Pairs of a mask for the ``cues`` of an item, and the weight to add if any bit matches.
    """

    items: GrowingArray
    vectors: GrowingArray
    candidates: KernelResult
    query_vector: Scores
    pooled_weight: float
    talk_weight: float
    meaning_weight: float
    speaker: int
    speaker_weight: float
    cue_weights: Sequence[tuple[int, float]]


# Tuples of an item's ordinal, its score, the sum of the question's words, and the cosine of its embedding and the
# question's; the best first, the older first among equals.
RankedItems = list[tuple[int, float, float, float]]
