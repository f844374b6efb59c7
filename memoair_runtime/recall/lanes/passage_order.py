"""The order in which the passages that a search found go into the context, which takes them while they fit.

Each rule was measured by the share of the evidence in the context, on LoCoMo and LongMemEval-S (development parts).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import NamedTuple

from memoair_index import Document, Hit
from memoair_index.cues import Cue, detect_cues
from memoair_index.folding import fold
from memoair_runtime.memory.facts import is_fact
from memoair_runtime.memory.speaker_names import AGENT
from memoair_runtime.memory.turn import event_id_of
from memoair_runtime.recall.snippet import MAX_WHOLE_CHARS
from memoair_runtime.recall.utterances import content_key, is_bare_question, key_terms, says_nothing

# The section of the context has space for about twenty utterances. With 64 of them, more short ones come before long
# ones that match better: LongMemEval-S .815 instead of .825.
_MAX_PASSAGES = 36
# A long reply, or a long dictation, must not take the space of all other turns.
_MAX_PASSAGES_PER_TURN = 3
# A reply that is longer waits for the caller's own words of the same turn. Before every reply: LoCoMo .834, so .836.
_SHORT_REPLY_CHARS = 200
# What an utterance's length in characters costs of its score: two short passages may say more than a long one. A line
# has an overhead besides its words. On LoCoMo, the context has one percentage point more of the evidence than with the
# score alone; factors from 0.5 to 0.8 give the same result.
LINE_OVERHEAD_CHARS = 20
_LENGTH_PENALTIES = [0.6 * math.log(LINE_OVERHEAD_CHARS + chars) for chars in range(MAX_WHOLE_CHARS + 1)]
# A question shows what the reply to it is about, so it costs less than a greeting or an "I don't know".
_QUESTION_PENALTY = 0.5
_EMPTY_PENALTY = 1.5
# A later statement is about the same as an earlier one if they share so many terms, and this share of all of theirs.
# Without the share it must announce a change. Any change word without shared terms: LoCoMo .832 instead of .836.
_MIN_SHARED_TERMS = 2
_MIN_OVERLAP = 0.5
_CHANGE = re.compile(
    r"\b(?:actually|now|new|moved|changed?|switch(?:ed)?|instead|no longer|any ?more|used to|update[ds]?|correction"
    r"|cancel(?:led|ed)?|rescheduled?)\b"
)


def order_passages(hits: Sequence[Hit], query: str) -> Iterator[Document]:
    """Yield the passages of hits, those first that are worth most in a context that is limited in characters.

    What is said twice is yielded once. Of a long reply one passage is yielded, behind the caller's own words of the
    turn; further ones come behind everything else. A statement that a later one may replace comes behind that one.

    Args:
        hits: The passages that were found, best first.
        query: The text of the query.
    """
    return _Order(_select_passages(hits, key_terms(query))).run()


def sort_latest(documents: Iterable[Document]) -> list[Document]:
    """Return passages without duplicates, the latest first, and those that say nothing behind the others."""
    seen: set[tuple[str, str]] = set()
    kept: list[tuple[bool, Document]] = []
    for document in sorted(documents, key=lambda document: document.occurred_at or 0.0, reverse=True):
        traits = _traits_of(document.text, _is_reply(document))
        key = document.speaker, traits.key
        if key not in seen:
            seen.add(key)
            kept.append((traits.says_nothing, document))
    return [document for _, document in sorted(kept, key=itemgetter(0))]


class _Traits(NamedTuple):
    """What the order depends on in the text of a passage.

    Attributes:
        key: The same for texts that say the same. A string, whose hash is computed once.
        terms: Its terms.
        says_nothing: See `memoair_runtime.recall.utterances.says_nothing`.
        penalty: What to take off the score.
    """

    key: str
    terms: frozenset[str]
    says_nothing: bool
    penalty: float


# A search asks for the same four things of some 40 texts, most of which the next one finds again.
@lru_cache(maxsize=4_096)
def _traits_of(text: str, is_reply: bool) -> _Traits:
    empty = says_nothing(text, is_reply=is_reply)
    penalty = _LENGTH_PENALTIES[min(len(text), MAX_WHOLE_CHARS)]
    if is_bare_question(text):
        penalty += _QUESTION_PENALTY
    elif empty:
        penalty += _EMPTY_PENALTY
    return _Traits(" ".join(content_key(text)), key_terms(text), empty, penalty)


class _Passage(NamedTuple):
    """A passage that was found.

    Attributes:
        value: How much it is worth.
        document: The passage.
        is_reply: Whether the agent said it.
        is_own: Whether the caller said it.
        is_statement: Whether they did, and it says something.
        event_id: The turn it belongs to.
        said_at: When it was said, in seconds since the epoch.
        traits: What its text is like.
        asked_terms: The terms of the query in it.
    """

    value: float
    document: Document
    is_reply: bool
    is_own: bool
    is_statement: bool
    event_id: str
    said_at: float
    traits: _Traits
    asked_terms: frozenset[str]


_value = attrgetter("value")
_said_at = attrgetter("said_at")


def _select_passages(hits: Iterable[Hit], query_terms: frozenset[str]) -> list[_Passage]:
    """Return the best passages, those first that are worth most, without those that repeat a better one."""
    seen: set[tuple[str, str]] = set()
    passages: list[_Passage] = []
    for hit in hits:
        if len(passages) == _MAX_PASSAGES:
            break
        document = hit.document
        is_reply = _is_reply(document)
        is_own = not (is_reply or is_fact(document))
        traits = _traits_of(document.text, is_reply)
        key = document.speaker, traits.key
        if key in seen:
            continue
        seen.add(key)
        passages.append(
            _Passage(
                hit.score - traits.penalty,
                document,
                is_reply,
                is_own,
                is_own and not traits.says_nothing,
                event_id_of(document),
                document.occurred_at or 0.0,
                traits,
                traits.terms & query_terms,
            )
        )
    passages.sort(key=_value, reverse=True)
    return passages


def _is_reply(document: Document) -> bool:
    return document.speaker == AGENT and not is_fact(document)


class _Order:
    """The state of one `order_passages`."""

    def __init__(self, passages: Sequence[_Passage]) -> None:
        self._passages = passages
        self._yielded: set[str] = set()
        self._counts: Counter[str] = Counter()  # passages that were yielded, by turn
        statements = [passage for passage in passages if passage.is_statement]
        self._statements_by_turn: defaultdict[str, list[_Passage]] = defaultdict(list)
        for statement in statements:
            self._statements_by_turn[statement.event_id].append(statement)
        # What may replace an earlier statement, the latest first.
        self._latest = sorted((passage for passage in statements if passage.asked_terms), key=_said_at, reverse=True)

    def run(self) -> Iterator[Document]:
        replied: set[str] = set()
        postponed: list[_Passage] = []
        for passage in self._passages:
            if passage.is_reply:
                event_id = passage.event_id
                if event_id in replied:
                    postponed.append(passage)
                    continue
                replied.add(event_id)
                if len(passage.document.text) > _SHORT_REPLY_CHARS:
                    for statement in self._statements_by_turn.get(event_id, ()):
                        yield from self._take(statement)
            yield from self._take(passage)
        for passage in postponed:
            yield from self._take(passage)

    def _take(self, passage: _Passage) -> list[Document]:
        """Return a passage, behind the one that may replace it, without what was yielded before."""
        document, event_id = passage.document, passage.event_id
        if document.id in self._yielded or self._counts[event_id] == _MAX_PASSAGES_PER_TURN:
            return []
        self._yielded.add(document.id)
        self._counts[event_id] += 1
        replacement = self._find_replacement(passage) if passage.is_own and passage.asked_terms else None
        return [document] if replacement is None else [*self._take(replacement), document]

    def _find_replacement(self, passage: _Passage) -> _Passage | None:
        """Return the latest statement that may replace this one, unless it was yielded."""
        asked_terms = passage.asked_terms
        for later in self._latest:
            if later.said_at <= passage.said_at:
                return None
            # The first two conditions rule out nearly all.
            if (
                asked_terms <= later.asked_terms
                and later.document.id not in self._yielded
                and _may_replace(later, passage)
            ):
                return later
        return None


def _may_replace(later: _Passage, passage: _Passage) -> bool:
    """Return whether a later statement may replace one: it is about the same, and says something else."""
    later_terms, terms = later.traits.terms, passage.traits.terms
    shared = len(later_terms & terms)
    if later_terms <= terms or shared < _MIN_SHARED_TERMS:
        return False
    if shared >= _MIN_OVERLAP * len(later_terms | terms):
        return True
    return len(passage.asked_terms) >= _MIN_SHARED_TERMS and _announces_change(later.document.text)


@lru_cache(maxsize=2_048)
def _announces_change(text: str) -> bool:
    folded = fold(text)
    return bool(detect_cues(folded) & Cue.CORRECTION or _CHANGE.search(folded))
