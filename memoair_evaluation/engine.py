"""The engine of evaluations: it asks the questions of cases, with the lanes and the context builder of the runtimes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import attrs

from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.case_records import CURRENT_SESSION, Given, RecallCase, hash_case
from memoair_evaluation.case_scoring import score_case
from memoair_evaluation.given import time_of, to_user, turn_keys_of, user_of
from memoair_evaluation.scoring import CaseResult
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_TIMEOUT_MS
from memoair_runtime.preview import (
    Budgets,
    OpenDocuments,
    PreviewedMemory,
    PreviewedSearch,
    PreviewUser,
    open_documents,
)
from memoair_runtime.preview import PreviewDocuments as EngineDocuments

__all__ = ["CaseQuestion", "Engine", "EngineDocuments", "open_engine"]

_DEFAULT_SETTINGS = RecallSettings()
_MAX_SHOWN_CHARS = 240


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
    """Asks questions about any number of callers over documents that are opened once. Made by `open_engine`.

    The same documents, caller, question and settings give the same reply and scores, whatever the time, the machine's
    load, and the order of the questions. For one thread at a time.
    """

    _documents: OpenDocuments

    def run_case(self, case: RecallCase, settings: RecallSettings = _DEFAULT_SETTINGS) -> CaseResult:
        """Ask the question of a case, and score what is recalled.

        Args:
            case: The case.
            settings: The settings of the search.
        """
        question = CaseQuestion(
            case.question, time_of(case), filter=case.filter, lanes=None if case.lanes is None else tuple(case.lanes)
        )
        user = user_of(case)
        search = self.trace(user, question, settings)
        return CaseResult(
            case_id=case.id,
            case_sha256=hash_case(case),
            scores=score_case(case, search, turn_keys_of(user), settings.timeout_ms),
            trace=_add_texts(search),
            context=search.contexts[0].text,
            half_context=search.contexts[1].text,
        )

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
        return self.trace(user, question, settings, explains=True).reply

    def trace(
        self,
        user: Given | PreviewUser | None,
        question: CaseQuestion,
        settings: RecallSettings = _DEFAULT_SETTINGS,
        *,
        explains: bool = False,
    ) -> PreviewedSearch:
        """Return the reply, the record of the search, and what is in the context; raises as `ask`.

        Args:
            user: What is known of the caller; None for an unknown one.
            question: The question.
            settings: The settings of the search.
            explains: Whether the reply has ``trace.explain``. The record has the same for each hit.

        Returns:
            The search. Its second context is the one with half the budgets.
        """
        budgets = _to_budgets(settings)
        half = Budgets(budgets.context_chars // 2, budgets.lane_chars // 2)
        memory = self.open_user(user, settings)
        return memory.trace(_to_search(question, settings, explains=explains), question.at.timestamp(), [half])

    def open_memory(
        self, user: Given | PreviewUser | None, settings: RecallSettings = _DEFAULT_SETTINGS
    ) -> "EngineMemory":
        """Return the memory of a caller, to be asked any number of questions while it grows.

        Args:
            user: What is known of the caller; None for an unknown one.
            settings: The settings of the searches.
        """
        return EngineMemory(self.open_user(user, settings), settings)

    def open_user(
        self, user: Given | PreviewUser | None, settings: RecallSettings = _DEFAULT_SETTINGS
    ) -> PreviewedMemory:
        """Return the memory of a caller over the documents, to be searched any number of times.

        Args:
            user: What is known of the caller; None for an unknown one.
            settings: The settings of the searches.
        """
        known = to_user(user) if isinstance(user, Given) else user or PreviewUser()
        return self._documents.open_user(known, _to_budgets(settings), keeps_deadline=False)


@attrs.frozen
class EngineMemory:
    """The memory of a caller over the documents of an engine; see `Engine.open_memory`. For one thread at a time."""

    _memory: PreviewedMemory
    _settings: RecallSettings

    def apply_event(self, event: Mapping[str, Any]) -> None:
        """Add an event, such as the next turn of a call."""
        self._memory.apply_event(event)

    def ask(self, question: CaseQuestion) -> PreviewedSearch:
        """Return what is recalled for a question, as `Engine.trace` does, with the one context of the reply."""
        return self._memory.trace(_to_search(question, self._settings, explains=False), question.at.timestamp())


@contextmanager
def open_engine(documents: EngineDocuments) -> Iterator[Engine]:
    """Yield an engine that has the documents open.

    Args:
        documents: The documents that every question searches.

    Raises:
        OSError: If the index file cannot be read, or is damaged.
    """
    yield Engine(open_documents(documents))


def _to_budgets(settings: RecallSettings) -> Budgets:
    default = Budgets()
    return Budgets(settings.context_chars or default.context_chars, settings.lane_chars or default.lane_chars)


def _to_search(question: CaseQuestion, settings: RecallSettings, *, explains: bool) -> dict[str, Any]:
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
        "explain": explains,
    }
    if question.filter:
        search["filter"] = dict(question.filter)
    if settings.min_confidence is not None:
        search["minConfidence"] = settings.min_confidence
    return search


def _add_texts(search: PreviewedSearch) -> dict[str, Any]:
    """Return the record of a search with the beginning of each hit's text, to be read without the documents."""
    record = search.record
    for name, lane in record["lanes"].items():
        for item, hit in zip(lane.get("items", ()), search.reply[name] or (), strict=False):
            item["text"] = hit["text"][:_MAX_SHOWN_CHARS]
    return record
