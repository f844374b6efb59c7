"""The engine of evaluations: it asks the questions of cases, with the lanes and the context builder of the runtimes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import attrs

from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.case_records import CURRENT_SESSION, EvaluationCase, Given, hash_case
from memoair_evaluation.case_scoring import score_case
from memoair_evaluation.given import time_of, to_user, user_of
from memoair_evaluation.scoring import CaseResult
from memoair_protocol.defaults import SEARCH_TIMEOUT_MS
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_TIMEOUT_MS
from memoair_runtime.preview import Budgets, PreviewData, PreviewUser, open_preview
from memoair_runtime.preview import PreviewDocuments as EngineDocuments

__all__ = ["CaseQuestion", "Engine", "EngineDocuments", "open_engine"]

_DEFAULT_SETTINGS = RecallSettings()


@attrs.frozen
class CaseQuestion:
    """A question to ask.

    Attributes:
        text: The question.
        at: When it is asked.
        session_id: The call in which it is asked.
        filter: A condition on metadata, as in a search of the SDK.
        lanes: The lanes that the agent asks; None for all.
    """

    text: str
    at: datetime
    session_id: str = CURRENT_SESSION
    filter: Mapping[str, Any] | None = None
    lanes: tuple[LaneName, ...] | None = None


@attrs.frozen
class Engine:
    """Asks questions about callers, each with the documents that it was opened with. For one thread."""

    _documents: EngineDocuments

    def run_case(self, case: EvaluationCase, settings: RecallSettings = _DEFAULT_SETTINGS) -> CaseResult:
        """Ask the question of a case, and score what is recalled.

        Args:
            case: The case.
            settings: The settings of the search.
        """
        question = CaseQuestion(
            case.question,
            time_of(case),
            filter=case.filter,
            lanes=None if case.lanes is None else tuple(case.lanes),
        )
        user = user_of(case)
        reply = self.ask(user, question, settings)
        half = self.ask(user, question, _halve(settings))["contextText"]
        scores = score_case(case, reply, half, settings.timeout_ms or SEARCH_TIMEOUT_MS)
        return CaseResult(case.id, hash_case(case), scores, reply["trace"], reply["contextText"], half)

    def ask(
        self, user: Given | PreviewUser | None, question: CaseQuestion, settings: RecallSettings = _DEFAULT_SETTINGS
    ) -> dict[str, Any]:
        """Return the reply that a runtime would give, with ``trace.explain``; no lane is cut off.

        Args:
            user: What is known of the caller; None for an unknown one.
            question: The question.
            settings: The settings of the search.

        Raises:
            InvalidSearchError: If the filter is invalid.
        """
        known = to_user(user) if isinstance(user, Given) else user or PreviewUser()
        data = PreviewData(**attrs.asdict(known, recurse=False), **attrs.asdict(self._documents, recurse=False))
        with open_preview(data, _to_budgets(settings)) as memory:
            return memory.search(_to_search(question, settings), question.at.timestamp())


@contextmanager
def open_engine(documents: EngineDocuments) -> Iterator[Engine]:
    """Yield an engine that has the documents open, for one thread.

    Args:
        documents: The documents that every question searches.

    Raises:
        OSError: If the index file cannot be read.
    """
    yield Engine(documents)


def _to_budgets(settings: RecallSettings) -> Budgets:
    default = Budgets()
    return Budgets(settings.context_chars or default.context_chars, settings.lane_chars or default.lane_chars)


def _halve(settings: RecallSettings) -> RecallSettings:
    budgets = _to_budgets(settings)
    return attrs.evolve(settings, context_chars=budgets.context_chars // 2, lane_chars=budgets.lane_chars // 2)


def _to_search(question: CaseQuestion, settings: RecallSettings) -> dict[str, Any]:
    lanes = [
        lane.value
        for lane in LaneName
        if (question.lanes is None or lane in question.lanes) and (settings.lanes is None or lane in settings.lanes)
    ]
    search: dict[str, Any] = {
        "sessionId": question.session_id,
        "query": question.text,
        "lanes": lanes,
        "topK": {lane.value: limit for lane, limit in settings.top_k.items()},
        "timeoutMs": MAX_TIMEOUT_MS,
        "explain": True,
    }
    if question.filter:
        search["filter"] = dict(question.filter)
    if settings.min_confidence is not None:
        search["minConfidence"] = settings.min_confidence
    return search
