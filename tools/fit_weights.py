"""Fit the weights of recall's features on the development halves, and show what each feature gains.

    python tools/fit_weights.py --locomo FILE --longmemeval FILE --faq FOLDER [--without FEATURES] [--write]

Builds the memories of `benchmarks/recall_quality.py` in this process, searches with a long list of hits, and fits the
weights so that the evidence ranks first: it maximizes the likelihood of the evidence under the softmax of the scores
over the list, with L2 regularization. All sets are fitted together, and the questions of a set share the set's weight
equally. No weight is negative, because each feature is a reason to prefer an item. Two features keep their weights:
`correction`, because corrections are rare in these sets, and `transformer`, which is used by the reranker only.

Metrics are measured by cross-validation, on conversations that the fit has not seen (one fold of five at a time). A
feature that costs more than .01 on any set is marked: try --without it. With so few questions, a single one may cause
that.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import minimize

from memoair_index import Hit, Index, Query, split_document
from memoair_index.ranking import FEATURES, default_weights
from memoair_protocol.enums import EventType, LaneName
from memoair_runtime.memory.profile import UserProfile
from memoair_runtime.memory.turn import event_id_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.recall.context_builder import Budgets, build_context
from memoair_runtime.recall.lanes.hits import FoundPassages
from memoair_runtime.recall.lanes.lane import LaneAnswer
from memoair_runtime.storage.events import new_event

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # the benchmarks are scripts, not a package

from recall_data import Conversation, Faq, make_noise, read_faq, read_locomo, read_longmemeval

WEIGHTS = Path(__file__).parents[1] / "memoair_index" / "data" / "weights.json"
# The fit starts with every feature in use, so that its gain can be measured.
START = {
    "around": 1.5,
    "meaning": 1.2,
    "speaker": 2.8,
    "self": 0.6,
    "date": 3.4,
    "time_word": 1.8,
    "amount": 0.4,
    "label": 25.0,
}
FIXED_FEATURES = ("correction", "transformer")
MIN_WEIGHT = 0.01  # of a useless feature, for the same reason
# The candidates depend on the weights, so searching and fitting alternate.
ROUNDS = 2
MAX_HITS = 150
FOLDS = 5
REGULARIZATION = 1e-3
COST_THRESHOLD = 0.01
TURN_HITS = 6
DOCUMENT_HITS = 5
TABLE_WIDTH = 160  # when the output is not a terminal
MAX_PASSAGES = 40  # as many as the permanent lane passes to the context builder
# All sets have the same weight, and variants of a set half of it.
SET_WEIGHTS = {
    "locomo": 1.0,
    "locomo-unnamed": 0.5,
    "locomo-noisy": 0.5,
    "longmemeval": 1.0,
    "longmemeval-noisy": 0.5,
    "faq": 1.0,
    "faq-noisy": 0.5,
}
NAMES = tuple(FEATURES)

Vector = NDArray[np.float64]
Search = Callable[[], list[Hit]]
Judge = Callable[[Sequence[Hit]], float]
Metrics = Mapping[str, float]


@attrs.frozen
class EvalQuestion:
    """A question: its search, the evidence in a hit, and a judge of a ranking of hits."""

    set_name: str
    fold: int
    search: Search
    find_evidence: Callable[[Hit], frozenset[str]]
    judge: Judge


@attrs.frozen
class SearchOutcome:
    """The hits of a question, with the features of each, and the rows of each piece of evidence.

    Attributes:
        question: The question.
        hits: What the search found.
        values: The unweighted features; shape ``(hits, features)``.
        evidence_rows: For each piece of evidence, the rows of the hits that contain it.
    """

    question: EvalQuestion
    hits: list[Hit]
    values: Vector
    evidence_rows: list[list[int]]

    def evaluate(self, weights: Vector) -> float:
        """Return the share of the evidence that the product would return with these weights."""
        order = np.argsort(-(self.values @ weights), kind="stable")
        return self.question.judge([self.hits[row] for row in order.tolist()])


class WeightFit:
    """A fit of the weights: maximizes the likelihood of the evidence of some questions."""

    def __init__(self, outcomes: Sequence[SearchOutcome]) -> None:
        usable = [outcome for outcome in outcomes if outcome.evidence_rows]
        counts = {name: sum(outcome.question.set_name == name for outcome in usable) for name in SET_WEIGHTS}
        longest = max(len(outcome.hits) for outcome in usable)
        self._values = np.zeros((len(usable), longest, len(NAMES)))
        self._absent = np.ones((len(usable), longest), bool)
        pieces, shares = [], []
        for row, outcome in enumerate(usable):
            self._values[row, : len(outcome.hits)] = outcome.values
            self._absent[row, : len(outcome.hits)] = False
            name = outcome.question.set_name
            for rows in outcome.evidence_rows:
                pieces.append((row, rows))
                shares.append(SET_WEIGHTS[name] / counts[name] / len(outcome.evidence_rows))
        self._rows = np.array([row for row, _ in pieces])
        self._shares = np.array(shares) / sum(shares)
        self._not_evidence = np.ones((len(pieces), longest), bool)
        for piece, (_, rows) in enumerate(pieces):
            self._not_evidence[piece, rows] = False
        self._spreads = self._measure_spreads()

    def optimize(self, start: Vector, without: Iterable[str] = ()) -> Vector:
        """Return the best weights, with those of some features fixed at 0."""
        start = np.array([0.0 if name in without else value for name, value in zip(NAMES, start, strict=True)])
        is_fixed = [name in FIXED_FEATURES or name in without for name in NAMES]
        bounds = [(value, value) if fixed else (0.0, None) for value, fixed in zip(start, is_fixed, strict=True)]
        result = minimize(self._loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        return np.asarray(result.x, np.float64)

    def _loss(self, weights: Vector) -> tuple[float, Vector]:
        scores = self._values @ weights
        scores[self._absent] = -np.inf
        log_sums, expected = _softmax(scores)
        evidence_scores = scores[self._rows]
        evidence_scores[self._not_evidence] = -np.inf
        evidence_log_sums, observed = _softmax(evidence_scores)
        loss = self._shares @ (log_sums[self._rows] - evidence_log_sums)
        slopes = (expected[self._rows] - observed) * self._shares[:, None]
        gradient = np.einsum("pn,pnk->k", slopes, self._values[self._rows])
        penalty = REGULARIZATION * self._spreads**2
        return float(loss + penalty @ weights**2), gradient + 2 * penalty * weights

    def _measure_spreads(self) -> Vector:
        """Return how much the values of each feature vary within a question, the unit of its regularization."""
        present = ~self._absent[:, :, None]
        means = (self._values * present).sum(1, keepdims=True) / present.sum(1, keepdims=True)
        differences = ((self._values - means) * present) ** 2
        spread = differences.sum(1) / present.sum(1)
        used = np.maximum((spread > 0).sum(0), 1)
        return np.sqrt(spread.sum(0) / used)


def main() -> int:
    """Fit and print the weights, and with --write store them."""
    arguments = _parse_arguments()
    console = Console(stderr=True)
    current = _to_vector(msgspec.json.decode(WEIGHTS.read_bytes(), type=dict[str, float]))
    dropped = tuple(arguments.without.split(",")) if arguments.without else ()
    questions = list(_read_questions(arguments, console))
    weights = start = _to_vector({**dict(zip(NAMES, current, strict=True)), **START})
    for _ in range(ROUNDS):
        outcomes = list(run_searches(questions, weights, console))
        weights = WeightFit(outcomes).optimize(start, dropped)
    folds = [
        ([outcome for outcome in outcomes if outcome.question.fold != fold], _select_fold(outcomes, fold))
        for fold in range(FOLDS)
    ]
    fits = [(WeightFit(others), own) for others, own in folds if own and others]
    metrics = cross_validate(fits, start, dropped)
    gains = {}
    for name in track(NAMES, "terms", console=console, disable=not console.is_terminal, transient=True):
        if name not in FIXED_FEATURES and name not in dropped:
            without = cross_validate(fits, start, (name, *dropped))
            gains[name] = {set_name: metrics[set_name] - without[set_name] for set_name in metrics}
    _print(
        weights,
        gains,
        {"current": mean_metrics(outcomes, current), "left out": metrics, "all": mean_metrics(outcomes, weights)},
    )
    if arguments.write:
        rounded = {name: round(float(weight), 2) for name, weight in zip(NAMES, weights, strict=True)}
        WEIGHTS.write_bytes(msgspec.json.format(msgspec.json.encode(rounded), indent=2) + b"\n")
    return 0


def run_searches(questions: Sequence[EvalQuestion], weights: Vector, console: Console) -> Iterator[SearchOutcome]:
    """Search with these weights, and yield the outcome of every question."""
    used = {name: max(MIN_WEIGHT, weight) for name, weight in zip(NAMES, weights.tolist(), strict=True)}
    # All indexes of this process share this object by default.
    default_weights().by_feature.update(used)
    for question in track(questions, "searches", console=console, disable=not console.is_terminal, transient=True):
        hits = question.search()
        contributions = [hit.contributions for hit in hits]  # computed on each access
        values = np.array([[terms.get(name, 0.0) / used[name] for name in NAMES] for terms in contributions])
        evidence_rows: dict[str, list[int]] = {}
        for row, hit in enumerate(hits):
            for piece in question.find_evidence(hit):
                evidence_rows.setdefault(piece, []).append(row)
        yield SearchOutcome(question, hits, values.reshape(len(hits), len(NAMES)), list(evidence_rows.values()))


def cross_validate(
    fits: Sequence[tuple[WeightFit, Sequence[SearchOutcome]]], start: Vector, without: Iterable[str] = ()
) -> dict[str, float]:
    """Return the metric of every set over the questions of each fold, with weights fitted to the other folds."""
    sums: dict[str, list[float]] = {}
    for fit, own in fits:
        weights = fit.optimize(start, without)
        for outcome in own:
            sums.setdefault(outcome.question.set_name, []).append(outcome.evaluate(weights))
    return {name: float(np.mean(sums[name])) for name in SET_WEIGHTS if name in sums}


def mean_metrics(outcomes: Sequence[SearchOutcome], weights: Vector) -> dict[str, float]:
    """Return the metric of every set."""
    sets = {
        name: [outcome.evaluate(weights) for outcome in outcomes if outcome.question.set_name == name]
        for name in SET_WEIGHTS
    }
    return {name: float(np.mean(metrics)) for name, metrics in sets.items() if metrics}


def locomo_questions(conversation: Conversation, set_name: str, fold: int) -> Iterator[EvalQuestion]:
    """Yield the questions of LoCoMo, judged by the evidence in the context."""
    memory, ids = build_memory(conversation)
    texts = {utterance.id: utterance.text for utterance in conversation.utterances()}
    for question in conversation.questions:
        wanted = frozenset(question.evidence)

        def judge(hits: Sequence[Hit], asked: str = question.text, wanted: frozenset[str] = wanted) -> float:
            passages = FoundPassages(hits[:MAX_PASSAGES], asked)
            context = " ".join(build_context({LaneName.PERMANENT: LaneAnswer(passages=passages)}, Budgets()).split())
            return float(np.mean([" ".join(texts[utterance_id].split()) in context for utterance_id in wanted]))

        yield EvalQuestion(
            set_name,
            fold,
            search=_bind_search(memory.search, memory.build_query(question.text, time.time())),
            find_evidence=lambda hit, wanted=wanted: wanted.intersection([ids[hit.document.id.rsplit(":", 1)[0]]]),
            judge=judge,
        )


def longmemeval_questions(conversation: Conversation, set_name: str, fold: int) -> Iterator[EvalQuestion]:
    """Yield the questions of LongMemEval, judged by the turns with evidence among the first six."""
    memory, ids = build_memory(conversation)
    for question in conversation.questions:
        utterances = frozenset(question.evidence)
        wanted = frozenset(side.rsplit(":", 1)[0] for side, utterance in ids.items() if utterance in utterances)

        def judge(hits: Sequence[Hit], wanted: frozenset[str] = wanted) -> float:
            turns = _first_unique((event_id_of(hit.document) for hit in hits), TURN_HITS)
            return len(wanted.intersection(turns)) / len(wanted)

        assert question.asked_at is not None  # noqa: S101 - for the type checker
        yield EvalQuestion(
            set_name,
            fold,
            search=_bind_search(memory.search, memory.build_query(question.text, question.asked_at.timestamp())),
            find_evidence=lambda hit, wanted=wanted: wanted.intersection([event_id_of(hit.document)]),
            judge=judge,
        )


def faq_questions(dialog: Conversation, index: Index, set_name: str, fold: int) -> Iterator[EvalQuestion]:
    """Yield the questions of the FAQ, judged by whether a document that answers is among the first five."""
    turns = tuple(utterance.text for utterance in dialog.utterances())
    for question in dialog.questions:
        wanted = frozenset(question.evidence)

        def judge(hits: Sequence[Hit], wanted: frozenset[str] = wanted) -> float:
            return float(not wanted.isdisjoint(_first_unique((hit.document.group for hit in hits), DOCUMENT_HITS)))

        yield EvalQuestion(
            set_name,
            fold,
            search=_bind_search(index.search, Query(question.text, recent_turns=turns)),
            # One of them is enough.
            find_evidence=lambda hit, wanted=wanted: frozenset(["any"] if hit.document.group in wanted else []),
            judge=judge,
        )


def build_memory(conversation: Conversation) -> tuple[UserMemory, dict[str, str]]:
    """Return a memory of a conversation, and the utterance id of each side of each turn."""
    memory = UserMemory(UserProfile())
    agent_name = {"assistantName": conversation.agent} if conversation.agent else {}
    user = {"id": conversation.id, "name": conversation.caller}
    ids = {}
    for call in conversation.calls:
        session_start = {"user": user, "metadata": agent_name}
        memory.apply_event(new_event(EventType.SESSION_START, call.id, 1, call.exchanges[0].spoken_at, session_start))
        for number, exchange in enumerate(call.exchanges):
            turn = {"turnId": exchange.id, "userText": exchange.user.text, "assistantText": exchange.assistant.text}
            event = new_event(EventType.TURN, call.id, number + 2, exchange.spoken_at, {**turn, "metadata": agent_name})
            memory.apply_event(event)
            ids |= {f"{event.event_id}:caller": exchange.user.id, f"{event.event_id}:agent": exchange.assistant.id}
    return memory, ids


def _read_questions(arguments: argparse.Namespace, console: Console) -> Iterator[EvalQuestion]:
    def with_progress(conversations: Sequence[Conversation], set_name: str) -> Iterable[tuple[int, Conversation]]:
        progress = track(conversations, set_name, console=console, disable=not console.is_terminal, transient=True)
        return ((number % FOLDS, conversation) for number, conversation in enumerate(progress))

    clean = read_locomo(arguments.locomo)
    noise = make_noise(clean)
    locomo = {
        "locomo": clean,
        "locomo-unnamed": [conversation.without_names() for conversation in clean],
        "locomo-noisy": [conversation.map_text(noise) for conversation in clean],
    }
    for set_name, conversations in locomo.items():
        for fold, conversation in with_progress(conversations, set_name):
            yield from locomo_questions(conversation, set_name, fold)
    clean = read_longmemeval(arguments.longmemeval)
    noise = make_noise(clean)
    for set_name, change in (("longmemeval", None), ("longmemeval-noisy", noise)):
        for fold, conversation in with_progress(clean, set_name):
            yield from longmemeval_questions(conversation.map_text(change) if change else conversation, set_name, fold)
    faq = read_faq(arguments.faq)
    index = _build_org_index(faq)
    noise = make_noise(faq.dialogs)
    for set_name, dialogs in (("faq", faq.dialogs), ("faq-noisy", [dialog.map_text(noise) for dialog in faq.dialogs])):
        for fold, dialog in with_progress(dialogs, set_name):
            yield from faq_questions(dialog, index, set_name, fold)


def _build_org_index(faq: Faq) -> Index:
    index = Index()
    index.add(
        chunk for document in faq.documents for chunk in split_document(document.id, document.text, document.metadata)
    )
    return index


def _bind_search(search: Callable[[Query, int], list[Hit]], query: Query) -> Search:
    return lambda: search(query, MAX_HITS)


def _first_unique(ids: Iterable[str], count: int) -> list[str]:
    """Return the first ``count`` different ids."""
    found: dict[str, None] = {}
    for id_ in ids:
        found[id_] = None
        if len(found) == count:
            break
    return list(found)


def _softmax(scores: Vector) -> tuple[Vector, Vector]:
    """Return the log-sum-exp and the softmax of each row."""
    highest = scores.max(axis=1, keepdims=True)
    exponentials = np.exp(scores - highest)
    sums = exponentials.sum(axis=1, keepdims=True)
    return (np.log(sums) + highest)[:, 0], exponentials / sums


def _select_fold(outcomes: Sequence[SearchOutcome], fold: int) -> list[SearchOutcome]:
    return [outcome for outcome in outcomes if outcome.question.fold == fold]


def _to_vector(weights: Mapping[str, float]) -> Vector:
    return np.array([weights.get(name, 0.0) for name in NAMES])


def _print(
    weights: Vector, gains: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Mapping[str, float]]
) -> None:
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    sets = list(metrics["current"])
    table = Table("feature", "weight", *sets, "", title="gain of each feature, cross-validated")
    for name, weight in zip(NAMES, weights, strict=True):
        gain = gains.get(name)
        cells = [f"{gain[set_name]:+.3f}" if gain else "" for set_name in sets]
        mark = (
            ("kept" if weight else "left out") if not gain else "costs" if min(gain.values()) < -COST_THRESHOLD else ""
        )
        table.add_row(name, f"{weight:.2f}", *cells, mark)
    console.print(table)
    table = Table("weights", *sets, title="share of the evidence found")
    labels = {"current": "present weights.json", "left out": "fitted, cross-validated", "all": "fitted on all data"}
    for name, label in labels.items():
        table.add_row(label, *(f"{metrics[name][set_name]:.3f}" for set_name in sets))
    console.print(table)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locomo", type=Path, metavar="FILE", required=True, help="a LoCoMo JSON file")
    parser.add_argument("--longmemeval", type=Path, metavar="FILE", required=True, help="LongMemEval-S, JSON lines")
    parser.add_argument("--faq", type=Path, metavar="FOLDER", required=True, help="the spoken FAQ")
    parser.add_argument("--without", metavar="FEATURES", help="features to leave out, separated by commas")
    parser.add_argument("--write", action="store_true", help=f"write the weights to {WEIGHTS.name}")
    arguments = parser.parse_args()
    unknown = set(arguments.without.split(",")) - set(NAMES) if arguments.without else set()
    if unknown:
        parser.error(f"--without: unknown features: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
