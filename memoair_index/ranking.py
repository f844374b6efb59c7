"""Ranking: the score of an item is a sum of terms, each with a weight and a reason.

The weights are data (``data/weights.json``), fitted by ``tools/fit_weights.py``.
"""

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from memoair_index.cues import Cue, QuestionType
from memoair_index.items import NONE, Array

# Each term by name, with the reason why it counts.
FEATURES: Mapping[str, str] = {
    "around": "the question's words, or words that mean nearly the same, stand in the utterance or near it in its call:"
    " BM25, a step away weakened to .7, .5, .35, .25, the best for each word",
    "meaning": "cosine of the question's and the utterance's static embedding",
    "speaker": "the question names one of the speakers, and it is his utterance",
    "self": "the question says I or my, and it is the caller's own utterance",
    "date": "the question names a date, and it was said then, or soon after",
    "time_word": "the question asks when, and a word for a time is in it",
    "amount": "the question asks how many or how long, and a word for a time is in it",
    "correction": "the speaker takes back or corrects something: the later word wins",
    "transformer": "cosine of the question and the document with its neighbours by MiniLM, for the best 50, where there"
    " is a model and the session asks for it",
    "label": "what the document is about was named in the talk, share of its rare words, .95 a turn since",
}

# BM25 sums are about four times a cosine's span of fifths; both are brought to about one.
BM25_UNIT = 4.0
COSINE_UNIT = 0.2


@attrs.frozen
class Weights:
    """What each term is multiplied with."""

    by_feature: Mapping[str, float]

    def __getitem__(self, feature: str) -> float:
        """The weight of a term; 0 where it was found to be of no use."""
        return self.by_feature.get(feature, 0.0)


@lru_cache(maxsize=1)
def default_weights() -> Weights:
    """The weights that come with the package."""
    content = (files("memoair_index") / "data" / "weights.json").read_bytes()
    return Weights(msgspec.json.decode(content, type=dict[str, float]))


@attrs.frozen
class Evidence:
    """What is known of the candidates of a search, a cell for each: the raw values of the terms."""

    items: Array  # `memoair_index.items.ITEM`
    pooled: NDArray[np.float32]
    cosines: NDArray[np.float32]
    matches_date: NDArray[np.bool_] | None  # None where the question names no date
    label_relevance: NDArray[np.float32] | None  # None where the talk names none


def feature_values(
    evidence: Evidence, question_type: QuestionType, speaker: int, *, speaker_is_named: bool
) -> dict[str, NDArray[np.float32]]:
    """The values of the terms that count in a search, before their weights; shape ``(candidates,)`` each."""
    cues = evidence.items["cues"]
    values = {
        "around": evidence.pooled / np.float32(BM25_UNIT),
        "meaning": evidence.cosines / np.float32(COSINE_UNIT),
        **{name: np.asarray((cues & which) != 0, np.float32) for name, which in cue_features(question_type).items()},
    }
    if speaker != NONE:
        values["speaker" if speaker_is_named else "self"] = np.asarray(evidence.items["speaker"] == speaker, np.float32)
    if evidence.matches_date is not None:
        values["date"] = evidence.matches_date.astype(np.float32)
    if evidence.label_relevance is not None:
        values["label"] = evidence.label_relevance
    return values


@lru_cache(maxsize=8)
def cue_features(question_type: QuestionType) -> Mapping[str, Cue]:
    """The terms that go by an utterance's form, where a question asks for this, each with the cue it goes by."""
    features = {"correction": Cue.CORRECTION}
    if question_type & QuestionType.WHEN:
        features["time_word"] = Cue.TIME
    if question_type & QuestionType.HOW_MUCH:
        features["amount"] = Cue.TIME
    return features
