"""Choose the weights of talk, labels and meaning on all sets of documents but one, and measure them on that one.

The sets are those of ``benchmarks/recall_quality.py``: ``--org`` names a folder with ``NAME.corpus.jsonl.gz`` and
``NAME.questions.jsonl.gz``, and ``--faq`` one with ``documents.jsonl`` and ``dialogues*.json``. The documents are
searched in this process, with the talk before each question, by every second question; the FAQ has few and is asked all
of them. A set's score is the mean of the shares of questions whose first document, and any of whose first five, is
right. Sets of one corpus in several languages (the same name before ``_``) count as one.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import fmean

import attrs
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from recall_data import Faq, org_set_names, read_faq, read_org

from memoair_index import Index, Query, split_document
from memoair_index.ranking import Weights, default_weights

CHOICES = {"talk": (0.3, 0.45, 0.65), "label": (8.0, 16.0, 24.0), "meaning": (0.6, 1.09, 1.7)}
_MAX_TURNS = 48
_PASSAGES = 24

Shares = tuple[float, float]  # of the first document, and of any of the first five


@attrs.frozen
class Question:
    """A question with the talk before it and the ids of the documents that answer it."""

    query: Query
    gold: frozenset[str]


@attrs.frozen
class DocumentSet:
    """A set's documents and questions."""

    documents: tuple[tuple[str, str, Mapping[str, object]], ...]
    questions: tuple[Question, ...]

    @classmethod
    def of(cls, faq: Faq, step: int) -> "DocumentSet":
        """Take every ``step``-th question of a set."""
        questions = []
        for dialog in faq.dialogs[::step]:
            sides = (side for _, exchange in dialog.exchanges() for side in (exchange.user, exchange.assistant))
            turns = tuple(side.text for side in sides if side.text)[-_MAX_TURNS:]
            question = dialog.questions[0]
            questions.append(Question(Query(question.text, recent_turns=turns), frozenset(question.evidence)))
        documents = tuple((document.id, document.text, document.metadata) for document in faq.documents)
        return cls(documents, tuple(questions))

    def measure(self, weights: Weights) -> Shares:
        """Return the shares of right documents."""
        index = Index(weights=weights)
        index.add(
            chunk
            for document_id, text, metadata in self.documents
            for chunk in split_document(document_id, text, dict(metadata))
        )
        first, any_of_five = 0, 0
        for question in self.questions:
            hits = index.search(question.query, _PASSAGES)
            found = list(dict.fromkeys(hit.document.group for hit in hits))[:5]
            first += bool(found and found[0] in question.gold)
            any_of_five += not question.gold.isdisjoint(found)
        return first / len(self.questions), any_of_five / len(self.questions)


def main() -> int:
    """Measure all combinations on all sets, and print what each set gets from the others' choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--org", type=Path, required=True, metavar="FOLDER", help="sets of an organization's documents")
    parser.add_argument("--faq", type=Path, metavar="FOLDER", help="a spoken FAQ")
    arguments = parser.parse_args()
    sets = {name: DocumentSet.of(read_org(arguments.org, name), 2) for name in org_set_names(arguments.org)}
    if arguments.faq:
        sets["faq"] = DocumentSet.of(read_faq(arguments.faq), 1)
    console = Console()
    shares: dict[tuple[float, ...], dict[str, Shares]] = {}
    for values in product(*CHOICES.values()):
        weights = Weights({**default_weights().by_feature, **dict(zip(CHOICES, values, strict=True))})
        shares[values] = {name: each.measure(weights) for name, each in sets.items()}
        console.print(dict(zip(CHOICES, values, strict=True)), shares[values])
    shipped = {name: each.measure(default_weights()) for name, each in sets.items()}
    table = Table("left out", ", ".join(CHOICES), "gives", "shipped weights give")
    for name in sets:
        left_out = name.partition("_")[0]
        best = max(shares, key=lambda values: _score(shares[values], left_out))
        table.add_row(name, str(best), _format(shares[best][name]), _format(shipped[name]))
    console.print(table)
    return 0


def _score(by_set: Mapping[str, Shares], left_out: str) -> float:
    """Return the mean of the scores of all sets but one, those of one corpus as one."""
    by_corpus: defaultdict[str, list[float]] = defaultdict(list)
    for name, shares in by_set.items():
        by_corpus[name.partition("_")[0]].append(fmean(shares))
    return fmean(fmean(scores) for corpus, scores in by_corpus.items() if corpus != left_out)


def _format(shares: Shares) -> str:
    return " / ".join(f"{share:.3f}" for share in shares)


if __name__ == "__main__":
    sys.exit(main())
