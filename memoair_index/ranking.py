"""Ranking: the score of an item is a weighted sum of features.

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

# Each feature by name, with its meaning. The names are the keys of weights.json and of `Hit.contributions`.
FEATURES: Mapping[str, str] = {
    "around": "the question's words, or words of nearly the same meaning, occur in the utterance or near it in its"
    " call: BM25, the best impact of each word, weighted by .7, .5, .35, .25 with each step away",
    "talk": "the same for words of the last twelve utterances before the question, .9 per utterance",
    "meaning": "cosine of the static embeddings of question and utterance",
    "speaker": "the question names one of the speakers, and the utterance is theirs",
    "self": "the question says I or my, and the utterance is the caller's own",
    "date": "the question names a date, and the utterance was made then, or soon after",
    "time_word": "the question asks when, and the utterance contains a word for a time",
    "amount": "the question asks how many or how long, and the utterance contains a word for a time",
    "correction": "the speaker takes back or corrects something: the later word wins",
    "transformer": "cosine of question and utterance (with its neighbors) or passage of a document by MiniLM, for the"
    " best 50, where there is a model and the session asks for it",
    "label": "the conversation mentioned what the document and others are about: share of the label's rare words, .95"
    " per turn",
}

# BM25 sums are about 4, and cosines differ by about 0.2; divided by these units both are about 1.
BM25_UNIT = 4.0
COSINE_UNIT = 0.2


@attrs.frozen
class Weights:
    """The factor of each feature in the score."""

    by_feature: Mapping[str, float]

    def __getitem__(self, feature: str) -> float:
        """Return the weight of a feature; 0 if the fit found it useless."""
        return self.by_feature.get(feature, 0.0)


@lru_cache(maxsize=1)
def default_weights() -> Weights:
    """Return the weights that are shipped with the package."""
    content = (files("memoair_index") / "data" / "weights.json").read_bytes()
    return Weights(msgspec.json.decode(content, type=dict[str, float]))


@attrs.frozen
class Evidence:
    """What is known about the candidates of a search; every array has the shape ``(candidates,)``.

    Attributes:
        items: Their records, `memoair_index.items.ITEM_DTYPE`.
        pooled: Their BM25 sums, impacts of neighbors included.
        talk: Their BM25 sums of the talk's words.
        cosines: Of their embeddings and the question's.
        matches_date: Whether they are of a day that the question names; None if it names none.
        label_relevance: The relevance of their labels.
    """

    items: Array
    pooled: NDArray[np.float32]
    talk: NDArray[np.float32]
    cosines: NDArray[np.float32]
    matches_date: NDArray[np.bool_] | None
    label_relevance: NDArray[np.float32]


def feature_values(
    evidence: Evidence, question_type: QuestionType, speaker: int, *, speaker_is_named: bool
) -> dict[str, NDArray[np.float32]]:
    """Return the unweighted values of the features that apply to a search; shape ``(candidates,)`` each."""
    cues = evidence.items["cues"]
    with np.errstate(over="ignore"):  # a damaged file may hold values that give nearly infinite scores
        scores = {
            "around": evidence.pooled / np.float32(BM25_UNIT),
            "talk": evidence.talk / np.float32(BM25_UNIT),
            "label": evidence.label_relevance,
            "meaning": evidence.cosines / np.float32(COSINE_UNIT),
        }
    values = {
        **scores,
        **{name: np.asarray((cues & cue) != 0, np.float32) for name, cue in cue_features(question_type).items()},
    }
    if speaker != NONE:
        values["speaker" if speaker_is_named else "self"] = np.asarray(evidence.items["speaker"] == speaker, np.float32)
    if evidence.matches_date is not None:
        values["date"] = evidence.matches_date.astype(np.float32)
    return values


@lru_cache(maxsize=8)
def cue_features(question_type: QuestionType) -> Mapping[str, Cue]:
    """Return the features that depend on an utterance's wording, for a type of question, each with its cue."""
    features = {"correction": Cue.CORRECTION}
    if question_type & QuestionType.WHEN:
        features["time_word"] = Cue.TIME
    if question_type & QuestionType.HOW_MUCH:
        features["amount"] = Cue.TIME
    return features
