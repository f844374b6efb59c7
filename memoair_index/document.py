"""What goes into the index and what comes out: documents, queries, hits."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs


@attrs.frozen
class Document:
    """A piece of text that can be found.

    ``id`` is unique in an index: adding a document with a known id replaces the old one. Documents of one ``group``
    (the utterances of a call, the parts of a long text) are neighbours, in the order in which they were added.
    ``labels`` say what the document is about (a title, the name of a place): a talk that names them leads to it.
    ``occurred_at`` is in seconds since the epoch, UTC. ``metadata`` is carried along and never searched.
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

    ``talk`` holds what was said just before, oldest first, for questions that do not name their subject. ``speaker`` is
    whom the question asks about: by his name, or (``by_name`` false) because he says "I". ``names`` are words that
    name speakers and say nothing else. ``group`` keeps only the documents of that group, ``without_group`` only those
    of every other. ``now`` is the moment of asking, in seconds since the epoch.
    """

    text: str
    recent_turns: tuple[str, ...] = ()
    speaker: str | None = None
    speaker_is_named: bool = True
    speaker_names: frozenset[str] = frozenset()
    group: str | None = None
    exclude_group: str | None = None
    now: float | None = None


class Hit:
    """A document that was found, with its score: higher is better, comparable within one search only.

    The document, and what the score is made of, are read when somebody first asks. Safe to use from any thread.
    """

    __slots__ = ("_document", "_load_contributions", "_load_document", "position", "score")

    def __init__(
        self,
        position: int,
        score: float,
        load_document: Callable[[int], Document],
        load_contributions: Callable[[int], Mapping[str, float]],
    ) -> None:
        """``place`` is what ``read`` and ``terms`` know the document by."""
        self.position = position
        self.score = score
        self._load_document = load_document
        self._load_contributions = load_contributions
        self._document: Document | None = None

    @property
    def document(self) -> Document:
        """The document, as it was when it was found."""
        if self._document is None:
            self._document = self._load_document(self.position)
        return self._document

    @property
    def contributions(self) -> Mapping[str, float]:
        """What the score is the sum of, by the names of `memoair_index.ranking.TERMS`; what is 0 is left out."""
        return self._load_contributions(self.position)

    def __repr__(self) -> str:
        return f"Hit({self.document.id!r}, {self.score:.4f})"
