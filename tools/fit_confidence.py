"""Fit the coefficients of the confidence of hits on the development halves, and show how well it is calibrated.

    python tools/fit_confidence.py --org-dev FOLDER --faq FOLDER --locomo FILE --longmemeval FILE [--write]

Each set is searched with its own questions and with as many that its store cannot answer: questions of the other sets,
for paragraphs in German, Russian and Chinese those about paragraphs that are left out. The first four documents or
turns that a question finds are samples: is this hit one that answers? The logistic function is fitted with L2
regularization to all sets, each with the same weight; own and unanswerable questions weigh the same.

Printed are the figures of each set with coefficients fitted to the other sets, and the calibration curves. As a test
beyond the fit, "detail" asks each store questions about the half of its documents that was left out: the subject is
known there and the answer is not.
"""

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from scipy.stats import rankdata

from memoair_index import Hit, Index, Query, split_document
from memoair_index.confidence import CONFIDENCE_FEATURES, INTERCEPT
from memoair_runtime.memory.turn import event_id_of

# Scripts, not packages.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from fit_weights import build_memory
from recall_data import Conversation, read_faq, read_locomo, read_longmemeval

COEFFICIENTS = Path(__file__).parents[1] / "memoair_index" / "data" / "confidence.json"
NAMES = tuple(CONFIDENCE_FEATURES)
OWN, FOREIGN, DETAIL = "own", "foreign", "detail"
OTHER_LANGUAGES = ("xquad_de", "xquad_ru", "xquad_zh")
ORG_SETS = ("doc2dial_val", "mtrag_un", "banking77", *OTHER_LANGUAGES)
HITS = 4  # as many as the org lane returns
SEARCHED_HITS = 40
MAX_QUESTIONS = 300  # of a set
MAX_CONVERSATION_QUESTIONS = 80
# LongMemEval has one question for each conversation, and building its memory takes a second.
MAX_CONVERSATIONS = 40
FOREIGN_PER_CONVERSATION = 5
REGULARIZATION = 1e-3
BINS = 10
TABLE_WIDTH = 160  # when the output is not a terminal

Vector = NDArray[np.float64]
Search = Callable[[Query], list[Hit]]
AskedQuestion = tuple[str, tuple[str, ...]]  # with the talk before it


@attrs.frozen
class OrgSet:
    """Documents (id, text, metadata), and questions with the talk before them and the ids of what answers them."""

    documents: list[tuple[str, str, dict[str, Any]]]
    questions: list[tuple[str, tuple[str, ...], frozenset[str]]]


@attrs.frozen
class Sample:
    """What one question found: the features of each hit, and whether it answers."""

    set_name: str
    kind: str
    values: Vector  # of shape (hits, features)
    answers: list[bool]


@attrs.frozen
class Rows:
    """The hits of some samples, one row each."""

    values: Vector
    answers: Vector
    weights: Vector


def main() -> int:
    """Fit and print the coefficients, and with --write store them."""
    arguments = _parse_arguments()
    samples = list(collect_samples(arguments, Console(stderr=True)))
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    coefficients = fit(to_rows(samples, (OWN, FOREIGN)))
    held_out = {
        name: fit(to_rows([sample for sample in samples if sample.set_name != name], (OWN, FOREIGN)))
        for name in dict.fromkeys(sample.set_name for sample in samples)
    }
    _print_coefficients(console, coefficients)
    _print_sets(console, samples, held_out)
    _print_curves(console, samples, held_out)
    if arguments.write:
        rounded = dict(zip((INTERCEPT, *NAMES), (round(value, 3) for value in coefficients.tolist()), strict=True))
        COEFFICIENTS.write_bytes(msgspec.json.format(msgspec.json.encode(rounded), indent=2) + b"\n")
    return 0


def collect_samples(arguments: argparse.Namespace, console: Console) -> Iterator[Sample]:
    """Search all sets."""
    chance = random.Random(1)
    org_sets = {name: read_org_set(arguments.org_dev, name) for name in ORG_SETS}
    org_sets["faq"] = read_faq_set(arguments.faq)
    talks = {"locomo": read_locomo(arguments.locomo), "longmemeval": read_longmemeval(arguments.longmemeval)}
    english: dict[str, list[AskedQuestion]] = {
        name: [(text, before) for text, before, _ in org_set.questions]
        for name, org_set in org_sets.items()
        if name not in OTHER_LANGUAGES
    }
    english |= {name: [(q.text, ()) for talk in set_ for q in talk.questions] for name, set_ in talks.items()}

    def draw_foreign(own_set: str) -> AskedQuestion:
        return chance.choice(english[chance.choice([name for name in english if name != own_set])])

    for name, org_set in org_sets.items():
        console.print(name)
        if name in OTHER_LANGUAGES:
            yield from search_halves(name, org_set, chance, FOREIGN)
        else:
            yield from search_org_set(name, org_set, chance, draw_foreign)
            yield from search_halves(name, org_set, chance, DETAIL)
    for name, conversations in talks.items():
        console.print(name)
        for conversation in conversations[:MAX_CONVERSATIONS]:
            others = [q.text for other in conversations if other is not conversation for q in other.questions]
            yield from search_conversation(name, conversation, others, chance, draw_foreign)


def search_org_set(
    name: str, org_set: OrgSet, chance: random.Random, draw_foreign: Callable[[str], AskedQuestion]
) -> Iterator[Sample]:
    """Search all documents of a set with its own questions and with foreign ones."""
    index = build_index(org_set.documents)
    for text, before, gold in chance.sample(org_set.questions, min(MAX_QUESTIONS, len(org_set.questions))):
        yield from _search_index(index, name, OWN, (text, before), gold)
        yield from _search_index(index, name, FOREIGN, draw_foreign(name), frozenset())


def search_halves(name: str, org_set: OrgSet, chance: random.Random, other_kind: str) -> Iterator[Sample]:
    """Search half of a set's documents with the questions about the other half; if foreign, with its own as well."""
    kept = set(sorted({document[0] for document in org_set.documents})[::2])
    index = build_index([document for document in org_set.documents if document[0] in kept])
    for text, before, gold in chance.sample(org_set.questions, min(MAX_QUESTIONS, len(org_set.questions))):
        if gold.isdisjoint(kept):
            yield from _search_index(index, name, other_kind, (text, before), frozenset())
        elif other_kind == FOREIGN:
            yield from _search_index(index, name, OWN, (text, before), gold)


def search_conversation(
    name: str,
    conversation: Conversation,
    others: Sequence[str],
    chance: random.Random,
    draw_foreign: Callable[[str], AskedQuestion],
) -> Iterator[Sample]:
    """Search a caller's memory with their own questions, with those of other callers, and of other sets."""
    memory, ids = build_memory(conversation)
    questions = conversation.questions
    for question in chance.sample(questions, min(MAX_CONVERSATION_QUESTIONS, len(questions))):
        asked_at = question.asked_at.timestamp() if question.asked_at else time.time()
        gold = frozenset(
            side.rsplit(":", 1)[0] for side, utterance in ids.items() if utterance in frozenset(question.evidence)
        )

        def search(text: str, kind: str, gold: frozenset[str] = gold, now: float = asked_at) -> Iterator[Sample]:
            hits = memory.search(memory.build_query(text, now), SEARCHED_HITS)
            yield from to_samples(hits, name, kind, lambda hit: event_id_of(hit.document), gold)

        yield from search(question.text, OWN)
        for _ in range(FOREIGN_PER_CONVERSATION if len(questions) == 1 else 1):
            text = chance.choice(others) if chance.random() < 0.5 else draw_foreign(name)[0]
            yield from search(text, FOREIGN, frozenset())


def to_samples(
    hits: Iterable[Hit], name: str, kind: str, group_of: Callable[[Hit], str], gold: frozenset[str]
) -> Iterator[Sample]:
    """Yield the sample of one search, if it found anything: the best hit of each of the first documents or turns."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(group_of(hit), hit)
        if len(best) == HITS:
            break
    if best:
        values = [[hit.confidence_features[feature] for feature in NAMES] for hit in best.values()]
        yield Sample(name, kind, np.array(values), [group in gold for group in best])


def build_index(documents: Sequence[tuple[str, str, dict[str, Any]]]) -> Index:
    """Return an index of documents, split as `create_index` splits them."""
    index = Index()
    index.add(chunk for id_, text, metadata in documents for chunk in split_document(id_, text, metadata))
    return index


def read_org_set(folder: Path, name: str) -> OrgSet:
    """Return a set of documents and questions."""
    corpus = _read_lines(folder / f"{name}.corpus.jsonl.gz")
    documents = [(item["id"], item["text"], item.get("metadata") or {}) for item in corpus]
    ids_by_intent: dict[Any, set[str]] = {}
    for id_, _, metadata in documents:
        ids_by_intent.setdefault(metadata.get("intent"), set()).add(id_)
    questions = []
    for item in _read_lines(folder / f"{name}.questions.jsonl.gz"):
        # Any text of the same intent answers.
        gold = ids_by_intent[item["kind"]] - {item["id"]} if name == "banking77" else set(item["gold"] or ())
        questions.append((item["text"], tuple(text for _, text in item.get("before", ())), frozenset(gold)))
    return OrgSet(documents, questions)


def read_faq_set(folder: Path) -> OrgSet:
    """Return the spoken FAQ as a set of documents and questions."""
    faq = read_faq(folder)
    questions = [
        (question.text, tuple(utterance.text for utterance in dialog.utterances()), frozenset(question.evidence))
        for dialog in faq.dialogs
        for question in dialog.questions
    ]
    return OrgSet([(doc.id, doc.text, dict(doc.metadata)) for doc in faq.documents], questions)


def to_rows(samples: Iterable[Sample], kinds: Sequence[str], hits: int = HITS) -> Rows:
    """Return the first hits of samples of some kinds; each set and kind has the same weight."""
    chosen = [sample for sample in samples if sample.kind in kinds]
    counts = Counter((sample.set_name, sample.kind) for sample in chosen for _ in sample.answers[:hits])
    values = np.concatenate([sample.values[:hits] for sample in chosen])
    answers = np.array([answer for sample in chosen for answer in sample.answers[:hits]], np.float64)
    weights = [1 / counts[sample.set_name, sample.kind] for sample in chosen for _ in sample.answers[:hits]]
    return Rows(values, answers, np.array(weights) / sum(weights))


def fit(rows: Rows) -> Vector:
    """Return the intercept and the coefficients of a logistic function."""
    means, spreads = rows.values.mean(0), rows.values.std(0) + 1e-9
    scaled = (rows.values - means) / spreads

    def loss(parameters: Vector) -> tuple[float, Vector]:
        logits = parameters[0] + scaled @ parameters[1:]
        losses = np.logaddexp(0, logits) - rows.answers * logits
        errors = rows.weights * (1 / (1 + np.exp(-logits)) - rows.answers)
        gradient = np.concatenate([[errors.sum()], scaled.T @ errors + 2 * REGULARIZATION * parameters[1:]])
        return float(rows.weights @ losses + REGULARIZATION * parameters[1:] @ parameters[1:]), gradient

    found = np.asarray(minimize(loss, np.zeros(len(NAMES) + 1), jac=True, method="L-BFGS-B").x, np.float64)
    coefficients = found[1:] / spreads
    return np.concatenate([[found[0] - coefficients @ means], coefficients])


def predict(coefficients: Vector, rows: Rows) -> Vector:
    """Return the confidence of each row."""
    return np.asarray(1 / (1 + np.exp(-(coefficients[0] + rows.values @ coefficients[1:]))), np.float64)


def _auc(above: Vector, below: Vector) -> float:
    """Return the probability that a value of the first kind is above one of the second."""
    if not len(above) or not len(below):
        return float("nan")
    ranks = rankdata(np.concatenate([above, below]))[: len(above)]
    return float((ranks.sum() - len(above) * (len(above) + 1) / 2) / (len(above) * len(below)))


def _bins(predicted: Vector, rows: Rows) -> list[tuple[float, float, float, int]]:
    """Return for each tenth of the scale the weight, the mean prediction, the share that answers, and the count."""
    places = np.minimum((predicted * BINS).astype(int), BINS - 1)
    bins = []
    for place in range(BINS):
        chosen = places == place
        weight = float(rows.weights[chosen].sum())
        mean, share = (
            float(rows.weights[chosen] @ of[chosen]) / weight if weight else float("nan")
            for of in (predicted, rows.answers)
        )
        bins.append((weight, mean, share, int(chosen.sum())))
    return bins


def _print_coefficients(console: Console, coefficients: Vector) -> None:
    table = Table("feature", "coefficient")
    for name, value in zip((INTERCEPT, *NAMES), coefficients, strict=True):
        table.add_row(name, f"{value:.3f}")
    console.print(table)


def _print_sets(console: Console, samples: Sequence[Sample], held_out: dict[str, Vector]) -> None:
    table = Table(
        "set",
        "AUC answerable",
        "AUC right",
        "AUC detail",
        "mean: right",
        "wrong",
        "foreign",
        "detail",
        "error",
        title="first hits, with coefficients of the other sets; calibration error over all hits",
    )
    for name, coefficients in held_out.items():
        of_set = [sample for sample in samples if sample.set_name == name]
        first = {kind: to_rows(of_set, (kind,), 1) for kind in dict.fromkeys(sample.kind for sample in of_set)}
        predicted = {kind: predict(coefficients, rows) for kind, rows in first.items()}
        is_right = first[OWN].answers > 0
        right, wrong, foreign = predicted[OWN][is_right], predicted[OWN][~is_right], predicted[FOREIGN]
        detail = predicted.get(DETAIL, np.zeros(0))
        rows = to_rows(of_set, (OWN, FOREIGN))
        error = sum(
            weight * abs(mean - share) for weight, mean, share, _ in _bins(predict(coefficients, rows), rows) if weight
        )
        values = (
            _auc(predicted[OWN], foreign),
            _auc(right, np.concatenate([wrong, foreign])),
            _auc(predicted[OWN], detail),
            *(float(group.mean()) if len(group) else float("nan") for group in (right, wrong, foreign, detail)),
            error,
        )
        table.add_row(name, *(f"{value:.2f}" for value in values))
    console.print(table)


def _print_curves(console: Console, samples: Sequence[Sample], held_out: dict[str, Vector]) -> None:
    table = Table("set", *(f"{place / BINS:.1f}-" for place in range(BINS)), title="predicted: observed (hits)")
    parts = []
    for name, coefficients in held_out.items():
        rows = to_rows([sample for sample in samples if sample.set_name == name], (OWN, FOREIGN))
        predicted = predict(coefficients, rows)
        parts.append((predicted, rows))
        table.add_row(name, *map(_format_bin, _bins(predicted, rows)))
    all_rows = Rows(
        np.concatenate([rows.values for _, rows in parts]),
        np.concatenate([rows.answers for _, rows in parts]),
        np.concatenate([rows.weights for _, rows in parts]),
    )
    table.add_row("all", *map(_format_bin, _bins(np.concatenate([part for part, _ in parts]), all_rows)))
    console.print(table)


def _format_bin(bin_: tuple[float, float, float, int]) -> str:
    return f"{bin_[1]:.2f}: {bin_[2]:.2f} ({bin_[3]})" if bin_[3] else ""


def _search_index(
    index: Index, name: str, kind: str, question: AskedQuestion, gold: frozenset[str]
) -> Iterator[Sample]:
    hits = index.search(Query(question[0], recent_turns=question[1]), SEARCHED_HITS)
    return to_samples(hits, name, kind, lambda hit: hit.document.group, gold)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--org-dev", type=Path, metavar="FOLDER", required=True, help="the sets of documents")
    parser.add_argument("--faq", type=Path, metavar="FOLDER", required=True, help="the spoken FAQ")
    parser.add_argument("--locomo", type=Path, metavar="FILE", required=True, help="a LoCoMo JSON file")
    parser.add_argument("--longmemeval", type=Path, metavar="FILE", required=True, help="LongMemEval-S, JSON lines")
    parser.add_argument("--write", action="store_true", help=f"write the coefficients to {COEFFICIENTS.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
