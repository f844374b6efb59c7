"""The languages that facts are learned from, and those that nothing is learned from."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import attrs
import pytest
from support.clouds import Client, RunningCloud, session_end, session_start, turn
from support.consolidation import make_turns
from support.corpus import CORPORA, Talk, count_facts, learn_from, read_corpus, read_talk

from memoair_cloud.consolidation import CallTurn, Extraction, RuleExtractor, merge_facts
from memoair_cloud.consolidation.days import compile_days
from memoair_cloud.consolidation.forms import compile_forms
from memoair_cloud.consolidation.language import available_languages, iterate_examples, load_language
from memoair_cloud.consolidation.turn_language import OTHER, LanguageRecognizer, languages_of_turns
from memoair_cloud.memories.extraction_worker import ExtractionWorker
from memoair_index import Document, Index, Query
from memoair_index.date_forms import find_dates
from memoair_index.folding import fold

FOLDERS = CORPORA.parent
OTHERS = sorted(set(available_languages()) - {"english"})
FOREIGN = list(read_corpus(Path(__file__).parents[1] / "fixtures" / "talks_in_other_languages.txt"))
RECOGNIZER = LanguageRecognizer(available_languages())
MONDAY = date(2026, 3, 2)


def test_english_german_and_spanish_have_rules() -> None:
    assert available_languages() == ("english", "german", "spanish")


@pytest.mark.parametrize(
    "example", [example for language in OTHERS for _, example in iterate_examples(load_language(language))]
)
def test_the_examples_of_the_rules_come_true(example: str) -> None:
    talk = read_talk("example", example)
    learned, right, expected, found = count_facts(talk)
    assert (learned, found) == (right, expected), learn_from(talk)


@pytest.mark.parametrize("language", OTHERS)
def test_precision_and_recall_of_the_corpora(language: str) -> None:
    for path in (FOLDERS / language).glob("corpus*.txt"):
        counts = [count_facts(talk) for talk in read_corpus(path)]
        learned, right, expected, found = (sum(column) for column in zip(*counts, strict=True))
        assert right / learned >= 0.97, path.name
        assert found / expected >= 0.95, path.name


@pytest.mark.parametrize("language", OTHERS)
def test_half_of_at_least_150_talks_have_no_facts(language: str) -> None:
    talks = list(read_corpus(FOLDERS / language / "corpus.txt"))
    held_back = list(read_corpus(FOLDERS / language / "corpus_held_back.txt"))
    assert len(talks) >= 150
    assert len(held_back) >= 60
    assert len({talk.line for talk in talks + held_back}) == len(talks + held_back)
    assert sum(not talk.expected for talk in talks) >= len(talks) / 2


@pytest.mark.parametrize("talk", FOREIGN, ids=lambda talk: f"{talk.kind}: {talk.line[:40]}")
def test_nothing_is_learned_from_other_languages(talk: Talk) -> None:
    assert learn_from(talk) == []


def test_at_least_ten_other_languages_have_fifteen_talks() -> None:
    kinds = [talk.kind for talk in FOREIGN]
    assert sum(kinds.count(kind) >= 15 for kind in set(kinds)) >= 10


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Ich bin allergisch gegen Nüsse.", "german"),
        ("Soy alérgica a las nueces.", "spanish"),
        ("I'm allergic to nuts.", "english"),
        ("Ik ben allergisch voor noten.", OTHER),
        ("Je suis allergique aux noix.", OTHER),
        ("O meu nome é Ana.", OTHER),
        ("Меня зовут Анна, я живу здесь.", OTHER),
    ],
)
def test_the_language_of_a_turn_is_recognized_whatever_is_assumed(text: str, language: str) -> None:
    assert {RECOGNIZER.recognize(text, assumed) for assumed in available_languages()} == {language}


@pytest.mark.parametrize("answer", ["Anna Cole", "0171 5550142", "No.", "Okay."])
def test_a_short_answer_is_in_the_language_of_the_call(answer: str) -> None:
    german = make_turns("Guten Tag, ich habe eine Frage zu meiner Rechnung.", answer)
    spanish = make_turns("Buenos días, tengo una pregunta sobre mi factura.", answer)
    assert languages_of_turns(german, RECOGNIZER) == ["german", "german"]
    assert languages_of_turns(spanish, RECOGNIZER) == ["spanish", "spanish"]


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("de-DE", "german"),
        ("de", "german"),
        ("es_MX", "spanish"),
        ("es-419", "spanish"),
        ("EN-us", "english"),
        ("german", "german"),
        ("fr-FR", OTHER),
        ("zh", OTHER),
        ("", None),
        ("und", None),
        ("multi", None),
    ],
)
def test_the_tags_of_platforms_name_languages(tag: str, language: str | None) -> None:
    assert RECOGNIZER.from_tag(tag) == language


@pytest.mark.parametrize(("tag", "language"), [("de-DE", "german"), ("fr-FR", OTHER), ("", "english")])
def test_a_turn_that_shows_no_language_is_in_the_one_that_is_named(tag: str, language: str) -> None:
    turns = [attrs.evolve(each, language=tag) for each in make_turns("Anna Cole.", "555 0142.")]
    assert languages_of_turns(turns, RECOGNIZER) == [language, language]


@pytest.mark.parametrize("named_by", ["turn", "call", "user"])
def test_metadata_name_the_language(cloud: RunningCloud, client: Client, named_by: str) -> None:
    class Spy(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            tags.extend(each.language for each in turns)
            return super().extract(turns)

    tags: list[str] = []
    start, said = session_start("s"), turn("t", said="Anna Cole.")
    named = {"turn": said["payload"], "call": start["payload"], "user": start["payload"].setdefault("user", {})}
    named[named_by]["metadata"] = {"language": "de-DE"}
    client.send(start, said, session_end("e"))
    ExtractionWorker(cloud.services.engine, Spy(), timedelta(hours=1)).process_next_call(client.identity["project"])
    assert tags == ["de-DE"]


def test_a_caller_may_change_the_language_within_a_call() -> None:
    said = ("My name is Anna Cole.", "Ich wohne in Köln.", "Soy alérgica a las nueces.", "Je suis végétarienne.")
    facts = RuleExtractor().extract(make_turns(*said, caller="")).facts
    assert [(fact.attribute, fact.value) for fact in facts] == [
        ("name", "Anna Cole"),
        ("home", "Köln"),
        ("allergy to nuts", "yes"),
    ]


def test_a_fact_of_one_language_is_closed_in_another() -> None:
    first = RuleExtractor().extract(make_turns("Ich bin allergisch gegen Nüsse.", session="a"))
    later = make_turns("I'm no longer allergic to nuts.", session="b")
    facts = merge_facts([*first.facts, *RuleExtractor().extract(later).facts])
    assert [fact.value for fact in facts if fact.is_current] == ["no"]


def test_only_the_languages_that_are_asked_for_are_learned_from() -> None:
    turns = make_turns("Ich bin allergisch gegen Nüsse.", "I'm allergic to latex.")
    assert {fact.attribute for fact in RuleExtractor(["english"]).extract(turns).facts} == {"allergy to latex"}


@pytest.mark.parametrize("language", OTHERS)
def test_each_rule_that_opens_a_fact_says_what_closes_it(language: str) -> None:
    rules = load_language(language).rules
    open_ended = {
        rule.text
        for rule in rules
        if rule.says and rule.value and not any(o.attribute == rule.attribute and o.ended for o in rules)
        if rule.attribute not in ("origin",) and not rule.attribute.startswith("plan")
    }
    assert open_ended == set()


@pytest.mark.parametrize("language", OTHERS)
def test_values_of_lists_are_words_that_english_has_too(language: str) -> None:
    english, other = load_language("english").lists, load_language(language).lists
    known = {*english["ALLERGEN"], *english["FOOD"], *english["CHANNEL"].values(), *english["LABEL"].values()}
    shared = [value for name in ("CHANNEL", "LABEL") for value in other[name].values()]
    assert set(shared) <= known | {"whatsapp"}
    common = {"nuts", "peanuts", "milk", "lactose", "gluten", "penicillin", "pollen", "latex", "eggs", "fish"}
    assert common <= set(other["ALLERGEN"].values()) & known


@pytest.mark.parametrize(
    ("language", "text", "first", "described"),
    [
        ("german", "am Dienstag", 1, "am Dienstag, 3. März 2026"),
        ("german", "übermorgen", 2, "am Mittwoch, 4. März 2026"),
        ("german", "am vierzehnten März", 12, "am Samstag, 14. März 2026"),
        ("german", "am 14. März 2026", 12, "am Samstag, 14. März 2026"),
        ("german", "nächste Woche Montag", 7, "am Montag, 9. März 2026"),
        ("spanish", "mañana", 1, "el martes 3 de marzo de 2026"),
        ("spanish", "pasado mañana", 2, "el miércoles 4 de marzo de 2026"),
        ("spanish", "el 14 de marzo", 12, "el sábado 14 de marzo de 2026"),
        ("spanish", "el lunes que viene", 7, "el lunes 9 de marzo de 2026"),
    ],
)
def test_days_are_read_and_written(language: str, text: str, first: int, described: str) -> None:
    grammar = load_language(language).days
    found = grammar.find_range(text, MONDAY, is_past=False)
    assert found is not None
    assert (found.first, (found.start, found.end)) == (MONDAY + timedelta(days=first), (0, len(text)))
    assert grammar.describe(found) == described


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("german", "jeden Montag"),
        ("german", "guten Morgen"),
        ("german", "montags"),
        ("german", "am 31. Februar"),
        ("spanish", "todos los lunes"),
        ("spanish", "por la mañana"),
        ("spanish", "los martes"),
    ],
)
def test_what_recurs_is_no_day(language: str, text: str) -> None:
    assert load_language(language).days.find_range(text, MONDAY, is_past=False) is None


@pytest.mark.parametrize("language", OTHERS)
def test_recall_reads_the_same_months(language: str) -> None:
    months = load_language(language).days.months  # type: ignore[attr-defined]
    found = [next(find_dates(fold(f"14. {name} 2026")), None) for name in months]
    assert [named and named.month for named in found] == list(range(1, 13))


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("Ich bin allergisch gegen Nüsse.", "Gegen was ist er allergisch?"),
        ("Ich wohne in Köln.", "Wo wohnt sie?"),
        ("Soy alérgica a las nueces.", "¿Qué alergia tiene?"),
        ("Vivo en Zaragoza.", "¿Dónde vive?"),
    ],
)
def test_a_fact_is_found_by_a_question_in_the_language_of_the_caller(said: str, question: str) -> None:
    (fact,) = RuleExtractor().extract(make_turns(said)).facts
    index = Index()
    others = ("The caller has a dentist appointment.", "Dana prefers e-mail.", "Dana's name is Dana Whitlock.")
    index.add(Document(text, text) for text in (*others, fact.text))
    assert index.search(Query(question), 1)[0].document.text == fact.text


def test_malformed_files_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown forms: fillers"):
        compile_forms({"fillers": "um"})
    with pytest.raises(ValueError, match="form 'filler'"):
        compile_forms({"filler": "(um"})
    entries = {
        "weekdays": list("abcdefg"), "months": list("hijklmnopqrs"), "words": {"WEEKDAY": {}},
        "expressions": [["(x", ""]], "templates": {},
    }  # fmt: skip
    with pytest.raises(ValueError, match="days: "):
        compile_days(entries)
