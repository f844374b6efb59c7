"""Fit the weights of recall's terms on the development halves, and say what each term is worth.

    python tools/fit_weights.py --locomo FILE --longmemeval FILE --faq FOLDER [--without TERMS] [--write]

Builds the memories of `benchmarks/recall_quality.py` in this process, takes a long list of what a search finds, and
fits the weights so that the evidence comes first: the softmax of the scores over the list, its likelihood for the
evidence, and a pull towards 0. All sets are fitted together, each question of a set with the same part of the set's
weight. No weight is negative: a term is there because it speaks for an item. Two terms stay as they are: `correction`,
since hardly anybody takes a word back in these sets, and `transformer`, which counts in the second stage only.

Each metric is told for questions of conversations that the weights had not seen (one fold of five left out in turn).
A term that costs more than .01 on any set is marked: try --without it. With so few questions one of them may do that.
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

from memoair_index import Hit, Index, Query
from memoair_index.ranking import TERMS, default_weights
from memoair_runtime.enums import LaneName
from memoair_runtime.memory.profile import UserProfile
from memoair_runtime.memory.turn import event_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.recall.context_builder import Budgets, build_context
from memoair_runtime.recall.lanes.hits import FoundPassages
from memoair_runtime.recall.lanes.lane import LaneAnswer
from memoair_runtime.recall.org_documents import to_documents
from memoair_runtime.storage.events import EventType, new_event

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # the benchmarks are scripts, no package

from recall_data import Conversation, Faq, noise_of, read_faq, read_locomo, read_longmemeval

WEIGHTS = Path(__file__).parents[1] / "memoair_index" / "data" / "weights.json"
# To begin with every term counts, so that what it is worth can be seen.
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
KEPT = ("correction", "transformer")
LEAST_WEIGHT = 0.01  # of a term that was found to be useless, for the same reason
# The candidates depend on the weights, so weights and candidates are found in turns.
ROUNDS = 2
LISTED = 150
FOLDS = 5
PULL = 1e-3
COSTS = 0.01
HITS = 6
DOCUMENTS = 5
WIDTH = 160  # of the tables, where they are written to a file
PASSAGES = 40  # as many as the permanent lane gives to the composer
# Each set counts as much as the others; what is a variant of it, half.
SET_WEIGHTS = {
    "locomo": 1.0,
    "locomo-unnamed": 0.5,
    "locomo-noisy": 0.5,
    "longmemeval": 1.0,
    "longmemeval-noisy": 0.5,
    "faq": 1.0,
    "faq-noisy": 0.5,
}
NAMES = tuple(TERMS)

Vector = NDArray[np.float64]
Search = Callable[[], list[Hit]]
Judge = Callable[[Sequence[Hit]], float]
Metrics = Mapping[str, float]


@attrs.frozen
class Asked:
    """A question: how it is searched, which hits hold a piece of its evidence, and how a ranking of hits is judged."""

    set_name: str
    fold: int
    search: Search
    pieces: Callable[[Hit], frozenset[str]]
    judge: Judge


@attrs.frozen
class Found:
    """What was found for a question: the terms' values, a row for each hit, and the rows of each piece of evidence."""

    asked: Asked
    hits: list[Hit]
    values: Vector
    pieces: list[list[int]]

    def metric(self, weights: Vector) -> float:
        """How much of the evidence the product would give with these weights."""
        order = np.argsort(-(self.values @ weights), kind="stable")
        return self.asked.judge([self.hits[place] for place in order.tolist()])


class Fit:
    """The likelihood of the evidence of some questions, as a function of the weights."""

    def __init__(self, found: Sequence[Found]) -> None:
        usable = [each for each in found if each.pieces]
        counts = {name: sum(each.asked.set_name == name for each in usable) for name in SET_WEIGHTS}
        longest = max(len(each.hits) for each in usable)
        self._values = np.zeros((len(usable), longest, len(NAMES)))
        self._absent = np.ones((len(usable), longest), bool)
        pieces, shares = [], []
        for row, each in enumerate(usable):
            self._values[row, : len(each.hits)] = each.values
            self._absent[row, : len(each.hits)] = False
            name = each.asked.set_name
            for places in each.pieces:
                pieces.append((row, places))
                shares.append(SET_WEIGHTS[name] / counts[name] / len(each.pieces))
        self._rows = np.array([row for row, _ in pieces])
        self._shares = np.array(shares) / sum(shares)
        self._elsewhere = np.ones((len(pieces), longest), bool)
        for number, (_, places) in enumerate(pieces):
            self._elsewhere[number, places] = False
        self._spread = self._spreads()

    def weights(self, start: Vector, without: Iterable[str] = ()) -> Vector:
        """The best weights, ``without`` some terms."""
        start = np.array([0.0 if name in without else value for name, value in zip(NAMES, start, strict=True)])
        stays = [name in KEPT or name in without for name in NAMES]
        bounds = [(value, value) if same else (0.0, None) for value, same in zip(start, stays, strict=True)]
        found = minimize(self._loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        return np.asarray(found.x, np.float64)

    def _loss(self, weights: Vector) -> tuple[float, Vector]:
        scores = self._values @ weights
        scores[self._absent] = -np.inf
        whole, expected = _softmax(scores)
        wanted = scores[self._rows]
        wanted[self._elsewhere] = -np.inf
        part, told = _softmax(wanted)
        loss = self._shares @ (whole[self._rows] - part)
        slopes = (expected[self._rows] - told) * self._shares[:, None]
        gradient = np.einsum("pn,pnk->k", slopes, self._values[self._rows])
        pull = PULL * self._spread**2
        return float(loss + pull @ weights**2), gradient + 2 * pull * weights

    def _spreads(self) -> Vector:
        """How far each term's values differ within a question: weights are pulled to 0 in this unit."""
        present = ~self._absent[:, :, None]
        means = (self._values * present).sum(1, keepdims=True) / present.sum(1, keepdims=True)
        differences = ((self._values - means) * present) ** 2
        spread = differences.sum(1) / present.sum(1)
        used = np.maximum((spread > 0).sum(0), 1)
        return np.sqrt(spread.sum(0) / used)


def main() -> int:
    """Fit, print, and with --write keep the weights."""
    arguments = _arguments()
    console = Console(stderr=True)
    current = _vector(msgspec.json.decode(WEIGHTS.read_bytes(), type=dict[str, float]))
    dropped = tuple(arguments.without.split(",")) if arguments.without else ()
    questions = list(_questions(arguments, console))
    weights = start = _vector({**dict(zip(NAMES, current, strict=True)), **START})
    for _ in range(ROUNDS):
        found = list(find(questions, weights, console))
        weights = Fit(found).weights(start, dropped)
    folds = [([each for each in found if each.asked.fold != fold], _in_fold(found, fold)) for fold in range(FOLDS)]
    fits = [(Fit(others), own) for others, own in folds if own and others]
    whole = left_out(fits, start, dropped)
    gains = {}
    for name in track(NAMES, "terms", console=console, disable=not console.is_terminal, transient=True):
        if name not in KEPT and name not in dropped:
            without = left_out(fits, start, (name, *dropped))
            gains[name] = {each: whole[each] - without[each] for each in whole}
    _print(weights, gains, {"current": means(found, current), "left out": whole, "all": means(found, weights)})
    if arguments.write:
        rounded = {name: round(float(weight), 2) for name, weight in zip(NAMES, weights, strict=True)}
        WEIGHTS.write_bytes(msgspec.json.format(msgspec.json.encode(rounded), indent=2) + b"\n")
    return 0


def find(questions: Sequence[Asked], weights: Vector, console: Console) -> Iterator[Found]:
    """Search for every question with these weights."""
    used = {name: max(LEAST_WEIGHT, weight) for name, weight in zip(NAMES, weights.tolist(), strict=True)}
    # One object is shared by every index of this process that was given no weights of its own.
    default_weights().of.update(used)
    for asked in track(questions, "searches", console=console, disable=not console.is_terminal, transient=True):
        hits = asked.search()
        told = [hit.terms for hit in hits]  # worked out at every look
        values = np.array([[terms.get(name, 0.0) / used[name] for name in NAMES] for terms in told])
        pieces: dict[str, list[int]] = {}
        for place, hit in enumerate(hits):
            for piece in asked.pieces(hit):
                pieces.setdefault(piece, []).append(place)
        yield Found(asked, hits, values.reshape(len(hits), len(NAMES)), list(pieces.values()))


def left_out(
    fits: Sequence[tuple[Fit, Sequence[Found]]], start: Vector, without: Iterable[str] = ()
) -> dict[str, float]:
    """Every set's metric over the questions of each fold, with weights that were fitted to the other folds."""
    sums: dict[str, list[float]] = {}
    for fit, own in fits:
        weights = fit.weights(start, without)
        for each in own:
            sums.setdefault(each.asked.set_name, []).append(each.metric(weights))
    return {name: float(np.mean(sums[name])) for name in SET_WEIGHTS if name in sums}


def means(found: Sequence[Found], weights: Vector) -> dict[str, float]:
    """Every set's metric."""
    sets = {name: [each.metric(weights) for each in found if each.asked.set_name == name] for name in SET_WEIGHTS}
    return {name: float(np.mean(metrics)) for name, metrics in sets.items() if metrics}


def ask_locomo(conversation: Conversation, set_name: str, fold: int) -> Iterator[Asked]:
    """LoCoMo: the evidence that stands in the context."""
    memory, ids = remember(conversation)
    texts = {utterance.id: utterance.text for utterance in conversation.utterances()}
    for question in conversation.questions:
        wanted = frozenset(question.evidence)

        def judge(hits: Sequence[Hit], asked: str = question.text, wanted: frozenset[str] = wanted) -> float:
            passages = FoundPassages(hits[:PASSAGES], asked)
            context = " ".join(build_context({LaneName.PERMANENT: LaneAnswer(passages=passages)}, Budgets()).split())
            return float(np.mean([" ".join(texts[each].split()) in context for each in wanted]))

        yield Asked(
            set_name,
            fold,
            search=_bound(memory.search, memory.query(question.text, time.time())),
            pieces=lambda hit, wanted=wanted: wanted.intersection([ids[hit.document.id.rsplit(":", 1)[0]]]),
            judge=judge,
        )


def ask_longmemeval(conversation: Conversation, set_name: str, fold: int) -> Iterator[Asked]:
    """LongMemEval: the turns with evidence among the first six."""
    memory, ids = remember(conversation)
    for question in conversation.questions:
        utterances = frozenset(question.evidence)
        wanted = frozenset(side.rsplit(":", 1)[0] for side, utterance in ids.items() if utterance in utterances)

        def judge(hits: Sequence[Hit], wanted: frozenset[str] = wanted) -> float:
            turns = _first((event_of(hit.document) for hit in hits), HITS)
            return len(wanted.intersection(turns)) / len(wanted)

        assert question.asked_at is not None  # noqa: S101 - for the type checker
        yield Asked(
            set_name,
            fold,
            search=_bound(memory.search, memory.query(question.text, question.asked_at.timestamp())),
            pieces=lambda hit, wanted=wanted: wanted.intersection([event_of(hit.document)]),
            judge=judge,
        )


def ask_faq(talk: Conversation, index: Index, set_name: str, fold: int) -> Iterator[Asked]:
    """FAQ: whether an answering document is among the first five."""
    said = tuple(utterance.text for utterance in talk.utterances())
    for question in talk.questions:
        wanted = frozenset(question.evidence)

        def judge(hits: Sequence[Hit], wanted: frozenset[str] = wanted) -> float:
            return float(not wanted.isdisjoint(_first((hit.document.group for hit in hits), DOCUMENTS)))

        yield Asked(
            set_name,
            fold,
            search=_bound(index.search, Query(question.text, talk=said)),
            # Any of them will do.
            pieces=lambda hit, wanted=wanted: frozenset(["any"] if hit.document.group in wanted else []),
            judge=judge,
        )


def remember(conversation: Conversation) -> tuple[UserMemory, dict[str, str]]:
    """A memory that was told a conversation; and for each side of each of its turns the id of the utterance."""
    memory = UserMemory(UserProfile())
    named = {"assistantName": conversation.agent} if conversation.agent else {}
    user = {"id": conversation.id, "name": conversation.caller}
    ids = {}
    for call in conversation.calls:
        opening = {"user": user, "metadata": named}
        memory.observe(new_event(EventType.SESSION_START, call.id, 1, call.exchanges[0].spoken_at, opening))
        for number, each in enumerate(call.exchanges):
            said = {"turnId": each.id, "userText": each.user.text, "assistantText": each.assistant.text}
            event = new_event(EventType.TURN, call.id, number + 2, each.spoken_at, {**said, "metadata": named})
            memory.observe(event)
            ids |= {f"{event.event_id}:caller": each.user.id, f"{event.event_id}:agent": each.assistant.id}
    return memory, ids


def _questions(arguments: argparse.Namespace, console: Console) -> Iterator[Asked]:
    def watched(conversations: Sequence[Conversation], set_name: str) -> Iterable[tuple[int, Conversation]]:
        progress = track(conversations, set_name, console=console, disable=not console.is_terminal, transient=True)
        return ((number % FOLDS, each) for number, each in enumerate(progress))

    clean = read_locomo(arguments.locomo)
    noise = noise_of(clean)
    locomo = {
        "locomo": clean,
        "locomo-unnamed": [each.unnamed() for each in clean],
        "locomo-noisy": [each.changed(noise) for each in clean],
    }
    for set_name, conversations in locomo.items():
        for fold, each in watched(conversations, set_name):
            yield from ask_locomo(each, set_name, fold)
    clean = read_longmemeval(arguments.longmemeval)
    noise = noise_of(clean)
    for set_name, change in (("longmemeval", None), ("longmemeval-noisy", noise)):
        for fold, each in watched(clean, set_name):
            yield from ask_longmemeval(each.changed(change) if change else each, set_name, fold)
    faq = read_faq(arguments.faq)
    index = _org_index(faq)
    noise = noise_of(faq.talks)
    for set_name, talks in (("faq", faq.talks), ("faq-noisy", [each.changed(noise) for each in faq.talks])):
        for fold, each in watched(talks, set_name):
            yield from ask_faq(each, index, set_name, fold)


def _org_index(faq: Faq) -> Index:
    index = Index()
    index.add(part for each in faq.documents for part in to_documents(each.id, each.text, each.metadata))
    return index


def _bound(search: Callable[[Query, int], list[Hit]], query: Query) -> Search:
    return lambda: search(query, LISTED)


def _first(ids: Iterable[str], count: int) -> list[str]:
    """The first different ids."""
    found: dict[str, None] = {}
    for each in ids:
        found[each] = None
        if len(found) == count:
            break
    return list(found)


def _softmax(scores: Vector) -> tuple[Vector, Vector]:
    """Of each row the logarithm of the sum of its exponentials, and what each has of that sum."""
    highest = scores.max(axis=1, keepdims=True)
    exponentials = np.exp(scores - highest)
    sums = exponentials.sum(axis=1, keepdims=True)
    return (np.log(sums) + highest)[:, 0], exponentials / sums


def _in_fold(found: Sequence[Found], fold: int) -> list[Found]:
    return [each for each in found if each.asked.fold == fold]


def _vector(weights: Mapping[str, float]) -> Vector:
    return np.array([weights.get(name, 0.0) for name in NAMES])


def _print(
    weights: Vector, gains: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Mapping[str, float]]
) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    sets = list(metrics["current"])
    table = Table("term", "weight", *sets, "", title="what each term adds, fold left out")
    for name, weight in zip(NAMES, weights, strict=True):
        told = gains.get(name)
        cells = [f"{told[each]:+.3f}" if told else "" for each in sets]
        mark = ("kept" if weight else "left out") if not told else "costs" if min(told.values()) < -COSTS else ""
        table.add_row(name, f"{weight:.2f}", *cells, mark)
    console.print(table)
    table = Table("weights", *sets, title="share of the evidence found")
    labels = {"current": "weights.json as it is", "left out": "fitted, fold left out", "all": "fitted on all of it"}
    for name, label in labels.items():
        table.add_row(label, *(f"{metrics[name][each]:.3f}" for each in sets))
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locomo", type=Path, metavar="FILE", required=True, help="a LoCoMo JSON file")
    parser.add_argument("--longmemeval", type=Path, metavar="FILE", required=True, help="LongMemEval-S, JSON lines")
    parser.add_argument("--faq", type=Path, metavar="FOLDER", required=True, help="the spoken FAQ")
    parser.add_argument("--without", metavar="TERMS", help="terms that are to be left out, with commas between them")
    parser.add_argument("--write", action="store_true", help=f"write the weights to {WEIGHTS.name}")
    arguments = parser.parse_args()
    unknown = set(arguments.without.split(",")) - set(NAMES) if arguments.without else set()
    if unknown:
        parser.error(f"--without knows no {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
