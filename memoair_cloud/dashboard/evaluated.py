"""Results of evaluations as pages show them: what was recalled of what a case expects, and where the rest was lost."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import attrs
from markupsafe import Markup, escape

from memoair_cloud.dashboard.case_form import describe_expectation
from memoair_evaluation.matching import contains_phrase, to_words
from memoair_protocol.enums import LaneName

# The texts of hits are recognized in a context by their beginnings, as scores do: contexts cut texts at their end.
_START_CHARS = 40
_WORD = re.compile(r"\w+")


class Place(str, Enum):
    """Where something is that a case names."""

    HALF = "also at half budget"  # in the context, also in that of half the budgets
    CONTEXT = "cut at half budget"  # in the context, but not in that of half the budgets
    HIT = "found, not in the context"  # among the hits of a lane
    NOWHERE = "not found"


@attrs.frozen
class ShownOutcome:
    """What has become of an expectation.

    Attributes:
        kind: ``fact``, ``document``, ``turn`` or ``text``.
        value: The words or the id.
        place: The index of a document, or the call of a turn.
        label: What has become of it, in words.
        tone: ``good``, ``warn``, ``bad`` or empty.
        note: What explains it; mostly empty.
    """

    kind: str
    value: str
    place: str
    label: str
    tone: str
    note: str


@attrs.frozen
class EvaluatedHit:
    """A hit of a lane, in the trace of a case.

    Attributes:
        lane: The lane.
        kind: ``turn``, ``fact``, ``document`` or ``profile``.
        id: Its id.
        rank: Its place in its lane, from 1.
        text: Its text, shortened.
        score: Its score; None if it has none.
        in_context: Whether the context had room for it.
        terms: Why it was found: the terms of its score, the largest first.
        session_id: The session of a turn.
        turn_id: The turn.
        index_name: The index of a document.
        document_id: The document.
        expected: ``must`` and ``must not``, if the case names it.
    """

    lane: str
    kind: str
    id: str
    rank: int
    text: str
    score: float | None
    in_context: bool
    terms: Sequence[tuple[str, float]]
    session_id: str | None
    turn_id: str | None
    index_name: str | None
    document_id: str | None
    expected: Sequence[str] = ()


@attrs.frozen
class ShownLane:
    """A lane of a search: its name, its milliseconds, whether they matter, and what is to be said of it."""

    name: str
    ms: float | None
    tone: str
    note: str


@attrs.frozen
class ShownResult:
    """The result of a case.

    Attributes:
        must: What has become of what must be recalled, the missing first; empty if the case is not known any more.
        must_not: The same of what must not.
        hits: The hits of all lanes, lane by lane.
        context: The context, with what the case names marked.
        half_context: The context of half the budgets, marked likewise.
    """

    must: Sequence[ShownOutcome] = ()
    must_not: Sequence[ShownOutcome] = ()
    hits: Sequence[EvaluatedHit] = ()
    context: Markup = attrs.field(factory=Markup)
    half_context: Markup = attrs.field(factory=Markup)


def show_result(
    content: Mapping[str, Any] | None, scores: Mapping[str, Any], details: Mapping[str, Any]
) -> ShownResult:
    """Return the result of a case, ready to be shown.

    Args:
        content: The case as it was in the run; None if it is not known any more.
        scores: Its scores.
        details: Its trace and contexts.
    """
    context, half = str(details.get("context") or ""), str(details.get("halfContext") or "")
    trace = details.get("trace") or {}
    hits = list(_read_hits(trace))
    must = [] if content is None else list(content.get("must") or ())
    must_not = [] if content is None else list(content.get("mustNot") or ())
    found, found_half = set(scores.get("found") or ()), set(scores.get("foundHalf") or ())
    unwanted = set(scores.get("unwantedItems") or ())
    asked = {lane.name for lane in show_lanes(trace, scores) if lane.note != "not asked"}
    outcomes = [
        _show_wanted(item, _place(number, found, found_half, hit := _find_hit(item, hits)), hit, hits, asked)
        for number, item in enumerate(must)
    ]
    avoided = [
        _show_unwanted(item, _place(number, unwanted, set(), hit := _find_hit(item, hits)), hit)
        for number, item in enumerate(must_not)
    ]
    marks = [(item, "") for item in must] + [(item, "unwanted") for item in must_not]
    return ShownResult(
        must=sorted(outcomes, key=lambda outcome: outcome.tone != "bad"),
        must_not=sorted(avoided, key=lambda outcome: outcome.tone != "bad"),
        hits=[attrs.evolve(hit, expected=_expectations_of(hit, must, must_not)) for hit in hits],
        context=_mark(context, marks, hits),
        half_context=_mark(half, marks, hits),
    )


def show_lanes(trace: Mapping[str, Any], scores: Mapping[str, Any]) -> list[ShownLane]:
    """Return the lanes of a search.

    Args:
        trace: The trace of a case.
        scores: Its scores, which name the lanes that were late.
    """
    shown = []
    for name, lane in (trace.get("lanes") or {}).items():
        status, ms = lane.get("status"), lane.get("ms")
        if name in (scores.get("lateLanes") or ()):
            shown.append(ShownLane(name, ms, "bad", "late"))
        elif status in ("skipped", "loading", "error"):
            note = "not asked" if status == "skipped" else str(status)
            shown.append(ShownLane(name, None, "" if status == "skipped" else "bad", note))
        else:
            shown.append(ShownLane(name, ms, "", ""))
    return shown


def _read_hits(trace: Mapping[str, Any]) -> Iterator[EvaluatedHit]:
    for lane, found in (trace.get("lanes") or {}).items():
        for rank, item in enumerate(found.get("items") or (), 1):
            terms, score = item.get("terms") or {}, item.get("score")
            yield EvaluatedHit(
                lane=lane,
                kind=str(item.get("kind") or ""),
                id=str(item.get("id") or ""),
                rank=rank,
                text=str(item.get("text") or ""),
                score=score if isinstance(score, (int, float)) else None,
                in_context=item.get("inContext") is not False,
                terms=sorted(((str(name), float(value)) for name, value in terms.items() if value), key=_by_weight),
                session_id=item.get("sessionId"),
                turn_id=item.get("turnId"),
                index_name=item.get("indexName"),
                document_id=item.get("documentId"),
            )


def _by_weight(term: tuple[str, float]) -> float:
    return -term[1]


def _find_hit(item: Mapping[str, Any], hits: Sequence[EvaluatedHit]) -> EvaluatedHit | None:
    """Return the best hit that has what is expected."""
    return min((hit for hit in hits if _is_hit(item, hit)), key=lambda hit: hit.rank, default=None)


def _place(number: int, found: set[int], found_half: set[int], hit: EvaluatedHit | None) -> Place:
    if number in found_half:
        return Place.HALF
    if number in found:
        return Place.CONTEXT
    return Place.NOWHERE if hit is None else Place.HIT


def _is_hit(item: Mapping[str, Any], hit: EvaluatedHit) -> bool:
    if item.get("document") is not None:
        # Documents from a folder may have no index: then any is meant, as in scores.
        is_index = None in (item.get("index"), hit.index_name) or item["index"] == hit.index_name
        return hit.document_id == item["document"] and is_index
    if item.get("turn") is not None:
        return hit.turn_id == item["turn"] and item.get("session") in (None, hit.session_id)
    if item.get("fact") is not None and hit.lane == LaneName.ORG.value:
        return False
    return contains_phrase(to_words(hit.text), str(item.get("fact") or item.get("text") or ""))


def _expectations_of(hit: EvaluatedHit, must: Iterable[Any], must_not: Iterable[Any]) -> list[str]:
    named = {"must": any(_is_hit(item, hit) for item in must), "must not": any(_is_hit(item, hit) for item in must_not)}
    return [name for name, is_named in named.items() if is_named]


def _show_wanted(
    item: Mapping[str, Any],
    place: Place,
    hit: EvaluatedHit | None,
    hits: Sequence[EvaluatedHit],
    asked: set[str],
) -> ShownOutcome:
    row = describe_expectation(item)
    tone = {Place.HALF: "good", Place.CONTEXT: "warn"}.get(place, "bad")
    label = {Place.HALF: "in the context", Place.CONTEXT: "in the context, cut at half budget"}.get(place, place.value)
    note = "" if hit is None else f"rank {hit.rank} of {hit.lane}"
    if hit is not None and place is Place.HIT:
        before = sum(other.lane == hit.lane and other.in_context and other.rank < hit.rank for other in hits)
        note += f": the context had no room for it after {before} of that lane" if before else ": cut from the context"
    if place is Place.NOWHERE and item.get("document") is not None and LaneName.ORG.value not in asked:
        note = "the lane org was not asked"
    return ShownOutcome(row["kind"], row["value"], row["place"], label, tone, note)


def _show_unwanted(item: Mapping[str, Any], place: Place, hit: EvaluatedHit | None) -> ShownOutcome:
    row = describe_expectation(item)
    is_bad = place in (Place.HALF, Place.CONTEXT)
    label = "in the context" if is_bad else place.value
    note = "" if hit is None else f"rank {hit.rank} of {hit.lane}"
    return ShownOutcome(row["kind"], row["value"], row["place"], label, "bad" if is_bad else "good", note)


def _mark(context: str, marks: Sequence[tuple[Mapping[str, Any], str]], hits: Sequence[EvaluatedHit]) -> Markup:
    """Return a context as HTML in which everything that a case names is marked."""
    spans = sorted(
        ((start, -end, name) for item, name in marks for start, end in _find_spans(item, context, hits)),
        key=lambda span: (span[0], span[1], not span[2]),
    )
    pieces: list[Markup] = []
    position = 0
    for start, negative_end, name in spans:
        if start < position:
            continue
        marked = Markup('<mark class="{}">{}</mark>') if name else Markup("<mark>{1}</mark>")
        pieces += [escape(context[position:start]), marked.format(name, context[start:-negative_end])]
        position = -negative_end
    return Markup("").join([*pieces, escape(context[position:])])


def _find_spans(item: Mapping[str, Any], context: str, hits: Sequence[EvaluatedHit]) -> Iterator[tuple[int, int]]:
    phrase = item.get("fact") or item.get("text")
    if phrase is not None:
        words = _WORD.findall(str(phrase))
        if words:
            pattern = r"\b" + r"[^\w\n]+".join(map(re.escape, words)) + r"\b"
            yield from (match.span() for match in re.finditer(pattern, context, re.IGNORECASE))
        return
    for hit in hits:
        if _is_hit(item, hit):
            for start in _find_lines(hit.text, context):
                line_end = context.find("\n", start)
                yield start, len(context) if line_end < 0 else line_end


def _find_lines(text: str, context: str) -> Iterator[int]:
    """Yield where the lines of a hit begin in a context."""
    for line in text.split("\n"):
        said = line.partition(": ")[2] or line
        start = context.find(said[:_START_CHARS]) if said.strip() else -1
        if start >= 0:
            yield start
