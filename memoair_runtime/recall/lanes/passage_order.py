"""The order in which the passages that a search found go into the context, which takes them while they fit.

Each rule was measured by the share of the evidence in the context, on LoCoMo and LongMemEval-S (development parts).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter

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
    documents = [hit.document for hit in sorted(_drop_repeated(hits), key=_passage_value, reverse=True)]
    return _Order(documents, query).run()


def sort_latest(documents: Iterable[Document]) -> list[Document]:
    """Return passages without duplicates, the latest first, and those that say nothing behind the others."""
    seen: set[object] = set()
    kept: list[Document] = []
    for document in sorted(documents, key=lambda document: document.occurred_at or 0.0, reverse=True):
        key = _content_key(document)
        if key not in seen:
            seen.add(key)
            kept.append(document)
    return sorted(kept, key=lambda document: says_nothing(document.text, is_reply=_is_reply(document)))


class _Order:
    """The state of one `order_passages`."""

    def __init__(self, documents: Sequence[Document], query: str) -> None:
        self._documents = documents
        self._query_terms = key_terms(query)
        self._yielded: set[str] = set()
        self._counts: Counter[str] = Counter()  # passages that were yielded, by turn
        # What callers stated: when, the terms of the query in it, and the passage; the latest first.
        self._statements: list[tuple[float, frozenset[str], Document]] = []
        self._statements_by_turn: defaultdict[str, list[Document]] = defaultdict(list)
        for document in documents:
            if _is_own_statement(document):
                asked_terms = key_terms(document.text) & self._query_terms
                self._statements.append((document.occurred_at or 0.0, asked_terms, document))
                self._statements_by_turn[event_id_of(document)].append(document)
        self._statements.sort(key=itemgetter(0), reverse=True)

    def run(self) -> Iterator[Document]:
        replied: set[str] = set()
        postponed: list[Document] = []
        for document in self._documents:
            if _is_reply(document):
                event_id = event_id_of(document)
                if event_id in replied:
                    postponed.append(document)
                    continue
                replied.add(event_id)
                if len(document.text) > _SHORT_REPLY_CHARS:
                    for statement in self._statements_by_turn[event_id]:
                        yield from self._take(statement)
            yield from self._take(document)
        for document in postponed:
            yield from self._take(document)

    def _take(self, document: Document) -> Iterator[Document]:
        event_id = event_id_of(document)
        if document.id in self._yielded or self._counts[event_id] == _MAX_PASSAGES_PER_TURN:
            return
        self._yielded.add(document.id)
        self._counts[event_id] += 1
        replacement = self._find_replacement(document)
        if replacement is not None:
            yield from self._take(replacement)
        yield document

    def _find_replacement(self, document: Document) -> Document | None:
        """Return the latest statement that may replace this one, unless it was yielded."""
        if _is_reply(document) or is_fact(document):
            return None
        asked_terms = key_terms(document.text) & self._query_terms
        if not asked_terms:
            return None
        said_at = document.occurred_at or 0.0
        for later_at, later_asked_terms, later in self._statements:
            if later_at <= said_at:
                return None
            # The first two conditions rule out nearly all.
            if (
                asked_terms <= later_asked_terms
                and later.id not in self._yielded
                and _may_replace(later.text, document.text, asked_terms)
            ):
                return later
        return None


def _may_replace(later_text: str, text: str, asked_terms: frozenset[str]) -> bool:
    """Return whether a later statement may replace one: it is about the same, and says something else."""
    later_terms, terms = key_terms(later_text), key_terms(text)
    shared = len(later_terms & terms)
    if later_terms <= terms or shared < _MIN_SHARED_TERMS:
        return False
    if shared >= _MIN_OVERLAP * len(later_terms | terms):
        return True
    return len(asked_terms) >= _MIN_SHARED_TERMS and _announces_change(later_text)


@lru_cache(maxsize=2_048)
def _announces_change(text: str) -> bool:
    folded = fold(text)
    return bool(detect_cues(folded) & Cue.CORRECTION or _CHANGE.search(folded))


def _drop_repeated(hits: Iterable[Hit]) -> list[Hit]:
    """Return the best hits, without those that repeat a better one."""
    best_by_key: dict[object, Hit] = {}
    for hit in hits:
        if len(best_by_key) == _MAX_PASSAGES:
            break
        best_by_key.setdefault(_content_key(hit.document), hit)
    return list(best_by_key.values())


def _content_key(document: Document) -> object:
    return document.speaker, content_key(document.text)


def _passage_value(hit: Hit) -> float:
    document = hit.document
    value = hit.score - _LENGTH_PENALTIES[min(len(document.text), MAX_WHOLE_CHARS)]
    if is_bare_question(document.text):
        return value - _QUESTION_PENALTY
    return value - _EMPTY_PENALTY if says_nothing(document.text, is_reply=_is_reply(document)) else value


def _is_reply(document: Document) -> bool:
    return document.speaker == AGENT and not is_fact(document)


def _is_own_statement(document: Document) -> bool:
    return document.speaker != AGENT and not is_fact(document) and not says_nothing(document.text, is_reply=False)
