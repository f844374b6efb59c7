"""The search service: it runs a search on the lanes under its deadline and builds the reply."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memoair_protocol.defaults import SEARCH_TIMEOUT_MS
from memoair_protocol.enums import Intent, LaneName, Variant
from memoair_protocol.timestamps import utc_now
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.recall.context_builder import Budgets, ComposedContext, compose_context
from memoair_runtime.recall.lane_executor import (
    LaneExecutor,
    LaneOutcome,
    LaneRequest,
    LaneStatus,
    Outcomes,
    SearchExecutor,
    answers_of,
)
from memoair_runtime.recall.lanes.lane import NO_ANSWER, Lane, LaneAnswer, LaneQuery
from memoair_runtime.recall.trace_record import FinishedSearch
from memoair_runtime.requests import SearchRequest


class SearchService:
    """Answers searches from a set of lanes. Thread-safe.

    Args:
        lanes: The lanes.
        metrics: Where searches are counted.
        budgets: The size limits of the context.
        executor: Runs the lanes; by default a `LaneExecutor`.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        metrics: RuntimeMetrics,
        budgets: Budgets | None = None,
        executor: SearchExecutor | None = None,
    ) -> None:
        self._lanes = tuple(lanes)
        self._metrics = metrics
        self._budgets = budgets or Budgets()
        self._executor = executor or LaneExecutor()

    def bootstrap_budgets(self) -> dict[str, int]:
        """Return the default budgets, as the reply of session/start has them."""
        limits = {lane.name: lane.default_limit for lane in self._lanes}
        return {
            "contextCharCap": self._budgets.context_chars,
            "perLaneCharCap": self._budgets.lane_chars,
            "topKPermanent": limits[LaneName.PERMANENT],
            "topKOrg": limits[LaneName.ORG],
            "topKWorking": limits[LaneName.WORKING],
        }

    def lane_readiness(self) -> dict[str, str]:
        """Return how far each lane's data is loaded."""
        return {lane.name.value: lane.readiness.value for lane in self._lanes}

    def search(
        self,
        request: SearchRequest,
        allowed_lanes: frozenset[LaneName],
        variant: Variant,
        notes: list[str],
        started_at: float,
        reply: Callable[[dict[str, Any]], None],
        on_answered: Callable[[FinishedSearch], None] | None = None,
        now: float | None = None,
    ) -> None:
        """Search the requested lanes and build the reply.

        Args:
            request: The search.
            allowed_lanes: Lanes that may be searched; others are skipped.
            variant: The embedding to use.
            notes: Notes for the trace.
            started_at: Time of the monotonic clock at which the request arrived, in seconds; the timeout runs from it.
            reply: Called once with the reply's body, by whichever thread has it in time.
            on_answered: Called after that, with what the search has found. None by default.
            now: When the question is asked, in seconds since the epoch, for relative dates; None for now.

        Raises:
            BadRequestError: If the filter is invalid.
        """
        timeout_ms = request.timeout_ms or SEARCH_TIMEOUT_MS
        deadline = started_at + timeout_ms / 1e3
        intent = request.known_intent()
        if intent is None:
            notes = [*notes, "unknown intent; answer_current_user is used instead"]
        lane_requests = self._build_lane_requests(
            request,
            allowed_lanes,
            intent or Intent.ANSWER_CURRENT_USER,
            variant,
            deadline,
            now if now is not None else time.time(),
        )

        def answer(outcomes: Outcomes) -> None:
            body, context = self._build_reply(request, outcomes, notes, started_at)
            reply(body)
            if on_answered is not None:
                on_answered(self._describe(request, intent or Intent.ANSWER_CURRENT_USER, outcomes, body, context))

        self._executor.run(lane_requests, deadline, answer)

    def _describe(
        self,
        request: SearchRequest,
        intent: Intent,
        outcomes: Outcomes,
        body: Mapping[str, Any],
        context: ComposedContext,
    ) -> FinishedSearch:
        trace = body["trace"]
        return FinishedSearch(
            request=request,
            intent=intent.value,
            outcomes=outcomes,
            skipped=[lane.name for lane in self._lanes if lane.name not in outcomes],
            context=context,
            notes=trace["notes"],
            total_ms=trace["totalMs"],
            deadline_ms=trace["deadlineMs"],
            occurred_at=utc_now(),
        )

    def _build_reply(
        self, request: SearchRequest, outcomes: Outcomes, notes: list[str], started_at: float
    ) -> tuple[dict[str, Any], ComposedContext]:
        answers = answers_of(outcomes)
        context = compose_context(answers, self._budgets, says_nothing_found=bool(request.say_nothing_found))
        hits = {name: [hit.to_wire() for hit in answers.get(name, NO_ANSWER).hits] for name in LaneName}
        total_s = time.monotonic() - started_at
        self._update_metrics(outcomes, total_s)
        body = {
            "contextText": context.text,
            "profile": answers.get(LaneName.PROFILE, NO_ANSWER).profile,
            "working": hits[LaneName.WORKING],
            "permanent": hits[LaneName.PERMANENT],
            "org": hits[LaneName.ORG],
            "sources": _list_sources(hits) if request.include_sources is not False else [],
            "trace": {
                "degraded": any(outcome.is_degraded for outcome in outcomes.values()),
                "totalMs": round(total_s * 1e3, 3),
                "deadlineMs": request.timeout_ms or SEARCH_TIMEOUT_MS,
                "lanes": {lane.name.value: _lane_trace(outcomes.get(lane.name, _SKIPPED)) for lane in self._lanes},
                "turnId": request.turn_id,
                "notes": notes,
                **({"explain": _explain_scores(answers)} if request.explain else {}),
            },
        }
        return body, context

    def close(self) -> None:
        """Release all resources. No search may follow."""
        self._executor.close()

    def _build_lane_requests(
        self,
        request: SearchRequest,
        allowed_lanes: frozenset[LaneName],
        intent: Intent,
        variant: Variant,
        deadline: float,
        now: float,
    ) -> list[LaneRequest]:
        predicate = request.filter_predicate()
        selected_lanes = allowed_lanes.intersection(LaneName if request.lanes is None else request.lanes)
        lane_requests = []
        for lane in self._lanes:
            limit = getattr(request.top_k, lane.name.value, None)
            if limit is None:
                limit = lane.default_limit
            if lane.name in selected_lanes and limit:
                query = LaneQuery(
                    request.query,
                    request.session_id,
                    intent,
                    limit,
                    deadline,
                    now,
                    variant,
                    predicate,
                    request.min_confidence or 0.0,
                )
                lane_requests.append(LaneRequest(lane, query))
        return lane_requests

    def _update_metrics(self, outcomes: Mapping[LaneName, LaneOutcome], total_s: float) -> None:
        self._metrics.search_seconds.observe(total_s)
        for name, outcome in outcomes.items():
            if outcome.is_degraded:
                self._metrics.lanes_missed.labels(name.value, outcome.status.value).inc()


_SKIPPED = LaneOutcome(LaneStatus.SKIPPED)


def _list_sources(hits: Mapping[LaneName, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    return [hit["source"] for lane_hits in hits.values() for hit in lane_hits]


def _lane_trace(outcome: LaneOutcome) -> dict[str, Any]:
    answer = outcome.answer
    trace = {"status": outcome.status.value, "ms": round(outcome.duration_ms, 3), "hits": len(answer.hits)}
    if answer.confidence is not None:  # not of the profile, nor of a lane that has not answered
        trace |= {"confidence": round(answer.confidence, 4), "nothingFound": not answer.hits}
    return trace


def _explain_scores(answers: Mapping[LaneName, LaneAnswer]) -> dict[str, dict[str, dict[str, float]]]:
    """Return for each lane and for the id of each hit the terms whose sum is its score."""
    return {
        name.value: {hit.source.id: _round_values(hit.contributions()) for hit in answer.hits}
        for name, answer in answers.items()
        if answer.hits
    }


def _round_values(terms: Mapping[str, float]) -> dict[str, float]:
    return {term: round(value, 4) for term, value in terms.items()}
