"""How many of the learned facts are true, and how many of the facts that were said are learned, by kind of talk.

The talks are beside the rules, in ``memoair_cloud/consolidation/english``. Those in ``corpus_held_back.txt`` were
written by the author of the rules and kept aside: they led to two changes, and their labels were corrected twice.
The figures of other languages are explained in ``docs/languages.md``.

    python benchmarks/learning.py [--language NAME] [--misses] [corpus ...]
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.corpus import CORPORA, Counts, Talk, count_facts, learn_from, read_corpus


def measure(talks: list[Talk], *, shows_misses: bool = False) -> None:
    """Print precision and recall by kind, and of all talks."""
    counts: defaultdict[str, list[Counts]] = defaultdict(list)
    for talk in talks:
        count = count_facts(talk)
        for kind in (talk.kind, "all"):
            counts[kind].append(count)
        if shows_misses and (count.right < count.learned or count.found < count.expected):
            print(f"{talk.kind}: {talk.line}\n    {[(fact.attribute, fact.value) for fact in learn_from(talk)]}")
    heading = f"{'talks':>6}{'learned':>9}{'right':>7}{'expected':>10}{'found':>7}{'precision':>11}{'recall':>8}"
    print(f"{'kind':16}{heading}")
    for kind, of_kind in sorted(counts.items(), key=lambda item: item[0] == "all"):
        learned, right, expected, found = (sum(column) for column in zip(*of_kind, strict=True))
        precision = f"{right / learned:.2f}" if learned else "-"
        recall = f"{found / expected:.2f}" if expected else "-"
        numbers = f"{len(of_kind):6}{learned:9}{right:7}{expected:10}{found:7}{precision:>11}{recall:>8}"
        print(f"{kind:16}{numbers}")


def main() -> int:
    """Measure the corpora that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="*", type=Path, help="files; those of the language if none is named")
    parser.add_argument("--language", default="english", help="the folder of a language beside the rules (%(default)s)")
    parser.add_argument("--misses", action="store_true", help="also print the talks that are not learned as expected")
    options = parser.parse_args()
    paths = options.corpus or sorted((CORPORA.parent / options.language).glob("corpus*.txt"))
    if not paths:
        parser.error(f"no talks of {options.language!r}")
    for path in paths:
        print(path.name)
        measure(list(read_corpus(path)), shows_misses=options.misses)
    return 0


if __name__ == "__main__":
    sys.exit(main())
