"""What goes into an index and what comes out: documents, queries and hits."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs


@attrs.frozen
class Document:
    """A piece of text that can be found.

    Documents of one group (the utterances of a call, the chunks of a long text) are neighbors, in the order in which
    they were added.

    Attributes:
        id: Unique in an index; adding a document with a known id replaces the earlier one.
        text: The text that is searched.
        group: The name of the group.
        speaker: Who said the text; empty if unknown.
        occurred_at: When it was said, in seconds since the epoch, UTC; None if unknown.
        labels: What the document is about (a title, the name of a place). A conversation that mentions a label leads
            to the document.
        metadata: Stored with the document, never searched.
    """

    id: str
    text: str
    group: str = ""
    speaker: str = ""
    occurred_at: float | None = None
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Query:
    """A question to an index.

    Attributes:
        text: The question.
        recent_turns: What was said just before, oldest first; it resolves questions that do not name their subject.
        speaker: The speaker that the question asks about, if any.
        speaker_is_named: True if the question names the speaker, False if the speaker says "I".
        speaker_names: Words that are names of speakers; they are not searched for.
        group: Search only this group.
        exclude_group: Search every group but this one.
        now: When the question is asked, in seconds since the epoch; "yesterday" is counted from it.
    """

    text: str
    recent_turns: tuple[str, ...] = ()
    speaker: str | None = None
    speaker_is_named: bool = True
    speaker_names: frozenset[str] = frozenset()
    group: str | None = None
    exclude_group: str | None = None
    now: float | None = None


class ConfidenceEstimate(Protocol):
    """Estimates the confidence of the hits of one search, by their positions."""

    def __call__(self, position: int, /) -> float:
        """Return the confidence of a hit, from 0 to 1."""

    def features(self, position: int, /) -> Mapping[str, float]:
        """Return what the confidence is computed from."""


class Hit:
    """A document that was found, with its score. Thread-safe.

    The document, the contributions to the score and the confidence are loaded or computed on access.

    Attributes:
        position: The number that identifies the document to the functions that the constructor is given.
        score: Higher is better; comparable within one search only.
    """

    __slots__ = ("_document", "_estimate_confidence", "_load_contributions", "_load_document", "position", "score")

    def __init__(
        self,
        position: int,
        score: float,
        load_document: Callable[[int], Document],
        load_contributions: Callable[[int], Mapping[str, float]],
        estimate_confidence: ConfidenceEstimate,
    ) -> None:
        self.position = position
        self.score = score
        self._estimate_confidence = estimate_confidence
        self._load_document = load_document
        self._load_contributions = load_contributions
        self._document: Document | None = None

    @property
    def document(self) -> Document:
        """The document as it was at the time of the search."""
        if self._document is None:
            self._document = self._load_document(self.position)
        return self._document

    @property
    def contributions(self) -> Mapping[str, float]:
        """What each feature of `memoair_index.ranking.FEATURES` adds to the score; zeros are left out."""
        return self._load_contributions(self.position)

    @property
    def confidence(self) -> float:
        """How likely the document is what the question asks for, from 0 to 1: the same scale in every store."""
        return self._estimate_confidence(self.position)

    @property
    def confidence_features(self) -> Mapping[str, float]:
        """The values that the confidence is computed from; see `memoair_index.confidence.CONFIDENCE_FEATURES`."""
        return self._estimate_confidence.features(self.position)

    def __repr__(self) -> str:
        return f"Hit({self.document.id!r}, {self.score:.4f})"
