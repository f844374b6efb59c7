"""The three sets that recall is measured on, in one shape, and what a speech recogniser makes of them.

LoCoMo (snap-research/LoCoMo, ``data/locomo10.json``; Maharana et al., 2024): long chats of two people, questions about
them, and the utterances that hold each answer. LongMemEval-S (Wu et al., 2025): some 50 chats with an assistant before
each question. Spoken FAQ (DSTC10, track 2, task 2): an organisation's documents, and telephone talks whose last turn
asks for what one of them says. The sets are read from where they lie; none of them comes with this project.
"""

import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from difflib import SequenceMatcher
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np

LOCOMO_KINDS = {1: "several facts", 2: "time", 3: "outside knowledge", 4: "one fact"}  # 5: the answer was never told
# Neither set says when within a session an utterance was made.
_EXCHANGE_INTERVAL = timedelta(seconds=20)
# The talks of the spoken FAQ have no date.
_FAQ_DATE = datetime(2021, 6, 1, 12, tzinfo=timezone.utc)

TextTransform = Callable[[str], str]


@attrs.frozen
class Utterance:
    """What one side said; without text where it said nothing."""

    id: str = ""
    text: str = ""


@attrs.frozen
class Exchange:
    """The caller spoke, the agent answered."""

    id: str
    user: Utterance
    assistant: Utterance
    spoken_at: datetime

    @property
    def text(self) -> str:
        """Both sides, a line each."""
        return "\n".join(side.text for side in (self.user, self.assistant) if side.text)


@attrs.frozen
class Call:
    """One session of a conversation."""

    id: str
    exchanges: tuple[Exchange, ...]


@attrs.frozen
class Question:
    """A question, and the ids of what answers it: of utterances, or of documents."""

    text: str
    evidence: tuple[str, ...]
    kind: str = ""
    asked_at: datetime | None = None


@attrs.frozen
class Conversation:
    """All calls of one caller, and what is asked after them. Names are empty where nobody tells them."""

    id: str
    caller: str
    agent: str
    calls: tuple[Call, ...]
    questions: tuple[Question, ...]

    def exchanges(self) -> Iterator[tuple[str, Exchange]]:
        """Every exchange with the id of its call, in order."""
        return ((call.id, exchange) for call in self.calls for exchange in call.exchanges)

    def utterances(self) -> Iterator[Utterance]:
        """Everything that was said, in order."""
        sides = (side for _, exchange in self.exchanges() for side in (exchange.user, exchange.assistant))
        return (side for side in sides if side.text)

    def without_names(self) -> "Conversation":
        """The same where nobody tells who is speaking."""
        return attrs.evolve(self, caller="", agent="")

    def map_text(self, transform: TextTransform) -> "Conversation":
        """The same with other words, in what was said and in what is asked."""
        return attrs.evolve(
            self,
            calls=tuple(_map_call_text(call, transform) for call in self.calls),
            questions=tuple(attrs.evolve(each, text=transform(each.text)) for each in self.questions),
        )


@attrs.frozen
class OrgDocument:
    """A document of an organisation."""

    id: str
    text: str
    metadata: Mapping[str, Any]


@attrs.frozen
class Faq:
    """Documents, and talks whose question one of them answers: conversations of one call and one question each."""

    documents: tuple[OrgDocument, ...]
    dialogs: tuple[Conversation, ...]


def read_locomo(path: Path) -> list[Conversation]:
    """The conversations of a LoCoMo file: calls of the first speaker to an agent, who is the second."""
    return [_locomo_conversation(item) for item in json.loads(path.read_text(encoding="utf-8"))]


def read_longmemeval(path: Path) -> list[Conversation]:
    """The conversations of a LongMemEval file of JSON lines, one question each; those without an answer left out."""
    found = (_longmemeval_conversation(item) for item in _read_json_lines(path))
    return [each for each in found if not each.id.endswith("_abs") and each.questions[0].evidence]


def read_faq(folder: Path) -> Faq:
    """The documents and the talks of a folder: ``documents.jsonl`` or ``.jsonl.gz``, and ``dialogues*.json``."""
    documents = (
        OrgDocument(item["id"], item["text"], item.get("metadata") or {})
        for item in _read_json_lines(_documents_file(folder))
    )
    items = [
        item for path in sorted(folder.glob("dialogues*.json")) for item in json.loads(path.read_text(encoding="utf-8"))
    ]
    return Faq(tuple(documents), tuple(map(_faq_dialog, items)))


class Noise:
    """What a speech recogniser leaves of a text: a seeded loss of one kind or the other for every tenth word.

    5 % of the words are dropped, 5 % replaced by the word of the set's vocabulary that is spelled most like them; no
    capital and no punctuation stays. A text becomes the same in every run, whatever came before it.
    """

    drop_rate = 0.05
    replace_rate = 0.05
    compared_words = 24

    def __init__(self, texts: Iterable[str], seed: int = 0) -> None:
        """``texts`` are all of the set's: their words are what may be heard instead of another."""
        self._seed = seed
        self._vocabulary = sorted({word for text in texts for word in _split_words(text)})
        self._closest_by_word: dict[str, str] = {}
        holders: defaultdict[str, list[int]] = defaultdict(list)
        for number, word in enumerate(self._vocabulary):
            for pair in _letter_pairs(word):
                holders[pair].append(number)
        self._words_with_pair = {pair: np.array(numbers, np.int32) for pair, numbers in holders.items()}
        self._pair_counts = np.array([len(_letter_pairs(word)) for word in self._vocabulary], np.float32)

    def __call__(self, text: str) -> str:
        """The text as it was heard: never nothing, where something was said."""
        chance = random.Random(f"{self._seed} {text}")
        words = _split_words(text)
        heard = []
        for word in words:
            roll = chance.random()
            if roll >= self.drop_rate:
                heard.append(self.closest_word(word) if roll < self.drop_rate + self.replace_rate else word)
        return " ".join(heard or words[:1])

    def closest_word(self, word: str) -> str:
        """The other word that is spelled most like this one (difflib's ratio); itself where none is like it."""
        if word not in self._closest_by_word:
            matcher = SequenceMatcher(b=word, autojunk=False)
            best, best_ratio = word, 0.0
            for other in self._similar_words(word):
                matcher.set_seq1(other)
                if matcher.ratio() > best_ratio:
                    best, best_ratio = other, matcher.ratio()
            self._closest_by_word[word] = best
        return self._closest_by_word[word]

    def _similar_words(self, word: str) -> list[str]:
        """The other words that have most pairs of letters in common with this one: few enough to compare each."""
        pairs = _letter_pairs(word)
        holders = [self._words_with_pair[pair] for pair in pairs if pair in self._words_with_pair]
        if not holders:
            return []
        shared = np.bincount(np.concatenate(holders), minlength=len(self._vocabulary))
        likeness = 2 * shared / (self._pair_counts + len(pairs))  # Dice's coefficient
        best = np.argsort(-likeness, kind="stable")[: self.compared_words].tolist()
        return [self._vocabulary[number] for number in best if shared[number] and self._vocabulary[number] != word]


def make_noise(conversations: Iterable[Conversation], seed: int = 0) -> Noise:
    """The noise of a recogniser that knows the words of these conversations."""
    all_conversations = list(conversations)
    said = (utterance.text for each in all_conversations for utterance in each.utterances())
    asked = (question.text for each in all_conversations for question in each.questions)
    return Noise([*said, *asked], seed)


def _map_call_text(call: Call, transform: TextTransform) -> Call:
    def changed(side: Utterance) -> Utterance:
        return attrs.evolve(side, text=transform(side.text)) if side.text else side

    exchanges = (
        attrs.evolve(each, user=changed(each.user), assistant=changed(each.assistant)) for each in call.exchanges
    )
    return attrs.evolve(call, exchanges=tuple(exchanges))


def _locomo_conversation(item: Mapping[str, Any]) -> Conversation:
    dialog = item["conversation"]
    caller = dialog["speaker_a"]
    calls = []
    for number in sorted(int(name.split("_")[1]) for name in dialog if re.fullmatch(r"session_\d+", name)):
        date_time = dialog[f"session_{number}_date_time"]  # 1:56 pm on 8 May, 2023
        began_at = datetime.strptime(date_time.upper(), "%I:%M %p ON %d %B, %Y").replace(tzinfo=timezone.utc)
        sides = [
            (each["speaker"] == caller, Utterance(each["dia_id"], each["text"])) for each in dialog[f"session_{number}"]
        ]
        calls.append(_make_call(f"session-{number}", sides, began_at))
    utterance_ids = {
        utterance.id for call in calls for each in call.exchanges for utterance in (each.user, each.assistant)
    }
    questions = []
    for asked in item["qa"]:
        evidence = tuple(turn for turn in re.findall(r"D\d+:\d+", " ".join(asked["evidence"])) if turn in utterance_ids)
        if asked["category"] in LOCOMO_KINDS and evidence:
            questions.append(Question(asked["question"], evidence, LOCOMO_KINDS[asked["category"]]))
    return Conversation(str(item["sample_id"]), caller, dialog["speaker_b"], tuple(calls), tuple(questions))


def _longmemeval_conversation(item: Mapping[str, Any]) -> Conversation:
    calls = []
    evidence = []
    dated = sorted(
        zip(map(_parse_date, item["haystack_dates"]), item["haystack_sessions"], strict=True), key=_first_item
    )
    for number, (began_at, turns) in enumerate(dated):
        sides = []
        for position, turn in enumerate(turns):
            utterance = Utterance(f"{number}:{position}", turn["content"])
            sides.append((turn["role"] == "user", utterance))
            if turn.get("has_answer") and utterance.text:
                evidence.append(utterance.id)
        calls.append(_make_call(f"session-{number}", sides, began_at))
    question = Question(item["question"], tuple(evidence), item["question_type"], _parse_date(item["question_date"]))
    return Conversation(item["question_id"], "", "", tuple(calls), (question,))


def _faq_dialog(item: Mapping[str, Any]) -> Conversation:
    *before, last = item["turns"]
    sides = [(turn["role"] == "user", Utterance(str(place), turn["text"])) for place, turn in enumerate(before)]
    gold = item["gold"]
    question = Question(last["text"], tuple([gold] if isinstance(gold, str) else gold))
    return Conversation(str(item["id"]), "", "", (_make_call(str(item["id"]), sides, _FAQ_DATE),), (question,))


def _make_call(call_id: str, sides: Iterable[tuple[bool, Utterance]], began_at: datetime) -> Call:
    """A call of utterances, each with whether the caller made it."""
    exchanges = (
        Exchange(f"turn-{number}", user, assistant, began_at + number * _EXCHANGE_INTERVAL)
        for number, (user, assistant) in enumerate(_pair_sides(sides))
    )
    return Call(call_id, tuple(exchanges))


def _pair_sides(sides: Iterable[tuple[bool, Utterance]]) -> Iterator[tuple[Utterance, Utterance]]:
    """What the caller said and what the agent answered; either may be missing."""
    silent = Utterance()
    waiting = silent
    for is_caller, utterance in sides:
        if not utterance.text:
            continue
        if is_caller:
            if waiting.text:
                yield waiting, silent
            waiting = utterance
        else:
            yield waiting, utterance
            waiting = silent
    if waiting.text:
        yield waiting, silent


def _parse_date(text: str) -> datetime:
    """A moment as LongMemEval tells it: 2023/12/21 (Thu) 21:31."""
    return datetime.strptime(re.sub(r" \(\w+\)", "", text), "%Y/%m/%d %H:%M").replace(tzinfo=timezone.utc)


def _first_item(pair: tuple[datetime, Any]) -> datetime:
    return pair[0]


def _documents_file(folder: Path) -> Path:
    for name in ("documents.jsonl", "documents.jsonl.gz"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: neither documents.jsonl nor documents.jsonl.gz")


def _read_json_lines(path: Path) -> Iterator[Any]:
    """The objects of a file of JSON lines, packed or not."""
    read = partial(gzip.open, mode="rt") if path.suffix == ".gz" else open
    with read(path, encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _split_words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)*", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def _letter_pairs(word: str) -> frozenset[str]:
    """The pairs of letters that stand side by side in a word, its beginning and its end taken for letters."""
    marked = f"^{word}$"
    return frozenset(map("".join, pairwise(marked)))
