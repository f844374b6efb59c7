"""The talks and examples beside the rules: what should be learned is, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.corpus import CORPORA, count_facts, learn_from, read_corpus, read_talk

from memoair_cloud.consolidation.language import iterate_examples, load_language
from memoair_cloud.consolidation.records import END_OF_PLAN, END_OF_RELATION, FactKind

ROOT = Path(__file__).parents[2]
ENGLISH = load_language()
EXAMPLES = [example for _, example in iterate_examples(ENGLISH)]
# Facts that nothing takes back: they were true when they were said, or last for life.
LASTING = {"birthday", "birthplace", "age", "origin"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_rules_come_true(example: str) -> None:
    talk = read_talk("example", example)
    learned, right, expected, found = count_facts(talk)
    assert (learned, found) == (right, expected), learn_from(talk)


@pytest.mark.parametrize(
    ("name", "min_precision", "min_recall"), [("corpus.txt", 0.97, 0.95), ("corpus_held_back.txt", 0.97, 0.90)]
)
def test_precision_and_recall_of_the_corpora(name: str, min_precision: float, min_recall: float) -> None:
    counts = [count_facts(talk) for talk in read_corpus(CORPORA / name)]
    learned, right, expected, found = (sum(column) for column in zip(*counts, strict=True))
    assert right / learned >= min_precision
    assert found / expected >= min_recall


def test_half_of_at_least_four_hundred_talks_have_no_facts() -> None:
    talks = [talk for path in CORPORA.glob("corpus*.txt") for talk in read_corpus(path)]
    assert len(talks) >= 400
    assert len({talk.line for talk in talks}) == len(talks), "no talk stands twice"
    assert sum(not talk.expected for talk in talks) >= len(talks) / 2


def test_each_rule_that_opens_a_fact_says_what_closes_it() -> None:
    opening = [rule for rule in ENGLISH.rules if rule.says and rule.value and rule.attribute not in LASTING]
    lasting_kinds = {FactKind.EVENT}
    ends = (END_OF_PLAN, END_OF_RELATION)
    missing = {
        rule.text
        for rule in opening
        if not rule.ended
        and rule.kind not in lasting_kinds
        and not rule.attribute.startswith(ends)
        and not any(other.ended and other.attribute == rule.attribute for other in ENGLISH.rules)
        and not any(other.value == "" and other.attribute == rule.attribute for other in ENGLISH.rules)
    }
    assert missing == set()


def test_each_slot_of_a_text_is_filled_by_each_expression() -> None:
    given = {"caller", "caller's", "days", "today", "weekday_today", "a", "a_channel", "counted_plural"}
    for rule in ENGLISH.rules:
        needed = set(re.findall(r"<([\w']+)>", f"{rule.attribute}{rule.value}{rule.text}")) - given - set(rule.defaults)
        for expression in rule.says:
            slots = {group.partition("_")[2] for group in expression.slot_types}
            assert needed <= slots, (rule.text, expression.pattern.pattern[:80])


def test_a_language_that_is_malformed_is_refused_by_the_name_of_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = ROOT / "memoair_cloud" / "consolidation" / "english"
    (tmp_path / "broken").mkdir()
    for path in english.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / "broken" / path.name).write_text(text.replace("i am called <name", "i am (called <name"), "utf-8")
    monkeypatch.setattr("memoair_cloud.consolidation.language.__file__", str(tmp_path / "language.py"))
    with pytest.raises(ValueError, match="The caller's name is"):
        load_language("broken")


def test_the_benchmark_prints_figures_by_kind() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "learning.py"), str(CORPORA / "corpus_held_back.txt")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120).stdout
    kinds = {talk.kind for talk in read_corpus(CORPORA / "corpus_held_back.txt")}
    assert kinds | {"all"} <= {re.split(r"\s{2,}|\s+\d", line)[0] for line in printed.splitlines()}
