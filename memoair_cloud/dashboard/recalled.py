"""Recall traces as pages show them: each hit with its text, why it was found, and what of it the answer used."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from markupsafe import Markup

from memoair_cloud.dashboard.rendering import mark_spans
from memoair_cloud.database.recall_trace_models import RecallTrace
from memoair_cloud.recall_traces.hit_texts import HitText, load_hit_texts
from memoair_cloud.recall_traces.used_words import find_used_words, shorten_around
from memoair_cloud.tenancy.access import Tenant

_SHOWN_CHARS = 240


@attrs.frozen
class ShownHit:
    """A hit of a lane.

    Attributes:
        lane: The lane.
        kind: ``turn``, ``fact``, ``document`` or ``profile``.
        id: Its id.
        score: Its score; None if it has none.
        in_context: Whether the context had room for it.
        text: Its text; None if it is not stored any more.
        html: Its text, with the words of the answer marked; None if it is not stored any more.
        used_count: The number of marked words.
        terms: Why it was found: the terms of its score, the largest first.
        session_id: The session that it comes from.
        event_id: The turn that it comes from.
        index_name: The index of a document.
        document_id: The document.
    """

    lane: str
    kind: str
    id: str
    score: float | None
    in_context: bool
    text: str | None = attrs.field(repr=False)
    html: Markup | None
    used_count: int
    terms: Sequence[tuple[str, float]]
    session_id: str | None
    event_id: str | None
    index_name: str | None
    document_id: str | None


@attrs.frozen
class ShownTrace:
    """A search with its hits.

    Attributes:
        trace: The stored trace.
        hits: The hits of all lanes, lane by lane.
    """

    trace: RecallTrace
    hits: Sequence[ShownHit]

    @property
    def used_count(self) -> int:
        """The number of hits of which the answer used words."""
        return sum(hit.used_count > 0 for hit in self.hits)


def show_traces(
    tenant: Tenant, user_id: str | None, traces: Iterable[tuple[RecallTrace, str]]
) -> dict[str, ShownTrace]:
    """Return traces with the texts of their hits, by id.

    Args:
        tenant: The project.
        user_id: The caller.
        traces: The traces, each with the answer that followed; empty if there was none.
    """
    pairs = list(traces)
    hits = [hit for trace, _ in pairs for lane_hits in _hits_of(trace).values() for hit in lane_hits]
    texts = load_hit_texts(tenant, user_id, hits) if hits else {}
    return {
        trace.id: ShownTrace(
            trace,
            [
                show_hit(lane, hit, texts.get((str(hit.get("kind")), str(hit.get("id")))), answer)
                for lane, lane_hits in _hits_of(trace).items()
                for hit in lane_hits
            ],
        )
        for trace, answer in pairs
    }


def show_hit(lane: str, hit: Mapping[str, Any], stored: HitText | None, answer: str) -> ShownHit:
    """Return a hit with its text, if it is known.

    Args:
        lane: The lane.
        hit: The hit as a trace keeps it.
        stored: Its text.
        answer: The answer of which words are marked.
    """
    html, used = None, 0
    if stored is not None:
        spans = find_used_words(stored.text, answer)
        html, used = mark_spans(*shorten_around(stored.text, spans, _SHOWN_CHARS)), len(spans)
    terms = hit.get("terms")
    if not isinstance(terms, dict):
        terms = {f"term {number}": value for number, value in enumerate(hit.get("termWeights") or (), 1)}
    score = hit.get("score")
    return ShownHit(
        lane=lane,
        kind=str(hit.get("kind") or ""),
        id=str(hit.get("id")),
        score=score if isinstance(score, (int, float)) else None,
        in_context=hit.get("inContext") is not False,
        text=None if stored is None else stored.text,
        html=html,
        used_count=used,
        terms=sorted(((str(name), float(value)) for name, value in terms.items() if value), key=lambda term: -term[1]),
        session_id=stored.session_id if stored else hit.get("sessionId"),
        event_id=stored.event_id if stored else None,
        index_name=hit.get("indexName"),
        document_id=hit.get("documentId"),
    )


def show_reply(reply: Mapping[str, Any], answer: str = "") -> list[ShownHit]:
    """Return the hits of a reply of the engine, lane by lane, with the words of an answer marked."""
    trace = reply["trace"]
    explained = trace.get("explain") or {}
    shown = []
    for lane in trace["lanes"]:
        for hit in reply.get(lane) or () if isinstance(reply.get(lane), list) else ():
            source = hit["source"]
            terms = explained.get(lane, {}).get(hit["id"], {})
            record = {**source, "score": hit["score"], "terms": terms, "id": source["id"]}
            is_turn = source["kind"] == "turn"
            event_id = source["id"] if is_turn else None
            stored = HitText(source["kind"], hit["text"], source.get("sessionId"), event_id)
            shown.append(show_hit(lane, record, stored, answer))
    return shown


def _hits_of(trace: RecallTrace) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    hits: Mapping[str, Sequence[Mapping[str, Any]]] = trace.details.get("hits") or {}
    return hits
