"""The data sets of recall quality in one form, and the noise of a speech recognizer.

LoCoMo (snap-research/LoCoMo, ``data/locomo10.json``; Maharana et al., 2024): long chats of two people, questions about
them, and the utterances that hold each answer. LongMemEval-S (Wu et al., 2025): some 50 chats with an assistant before
each question. Spoken FAQ (DSTC10, track 2, task 2): an organization's documents, and telephone dialogs whose last turn
asks for something that one of them says. Sets of an organization's documents: a folder with ``NAME.corpus.jsonl.gz``
(id, text, metadata) and ``NAME.questions.jsonl.gz`` (id, text, before, kind, gold) for each set. The sets are read from
local files; they are not part of this project.
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

LOCOMO_KINDS = {1: "several facts", 2: "time", 3: "outside knowledge", 4: "one fact"}  # 5: unanswerable
# No set says when within a session an utterance was made.
_EXCHANGE_INTERVAL = timedelta(seconds=20)
# The dialogs of the spoken FAQ have no date.
_CORPUS = ".corpus.jsonl.gz"
_FAQ_DATE = datetime(2021, 6, 1, 12, tzinfo=timezone.utc)

TextTransform = Callable[[str], str]


@attrs.frozen
class Utterance:
    """What one side said; the text is empty if it said nothing."""

    id: str = ""
    text: str = ""


@attrs.frozen
class Exchange:
    """What the caller said and what the agent answered."""

    id: str
    user: Utterance
    assistant: Utterance
    spoken_at: datetime

    @property
    def text(self) -> str:
        """Both sides, one line each."""
        return "\n".join(side.text for side in (self.user, self.assistant) if side.text)


@attrs.frozen
class Call:
    """One session of a conversation."""

    id: str
    exchanges: tuple[Exchange, ...]


@attrs.frozen
class Question:
    """A question, and the ids of the utterances or documents that answer it."""

    text: str
    evidence: tuple[str, ...]
    kind: str = ""
    asked_at: datetime | None = None


@attrs.frozen
class Conversation:
    """All calls of one caller, and the questions after them. Names are empty if unknown."""

    id: str
    caller: str
    agent: str
    calls: tuple[Call, ...]
    questions: tuple[Question, ...]

    def exchanges(self) -> Iterator[tuple[str, Exchange]]:
        """Yield every exchange with the id of its call, in order."""
        return ((call.id, exchange) for call in self.calls for exchange in call.exchanges)

    def utterances(self) -> Iterator[Utterance]:
        """Yield everything that was said, in order."""
        sides = (side for _, exchange in self.exchanges() for side in (exchange.user, exchange.assistant))
        return (side for side in sides if side.text)

    def without_names(self) -> "Conversation":
        """Return a copy without the names of the speakers."""
        return attrs.evolve(self, caller="", agent="")

    def map_text(self, transform: TextTransform) -> "Conversation":
        """Return a copy in which the text of all utterances and questions is transformed."""
        return attrs.evolve(
            self,
            calls=tuple(_map_call_text(call, transform) for call in self.calls),
            questions=tuple(attrs.evolve(question, text=transform(question.text)) for question in self.questions),
        )


@attrs.frozen
class OrgDocument:
    """A document of an organization."""

    id: str
    text: str
    metadata: Mapping[str, Any]


@attrs.frozen
class Faq:
    """Documents, and dialogs that one of them answers: conversations of one call and one question each."""

    documents: tuple[OrgDocument, ...]
    dialogs: tuple[Conversation, ...]


def read_locomo(path: Path) -> list[Conversation]:
    """Return the conversations of a LoCoMo file as calls of the first speaker to the second, the agent."""
    return [_locomo_conversation(item) for item in json.loads(path.read_text(encoding="utf-8"))]


def read_longmemeval(path: Path) -> list[Conversation]:
    """Return the conversations of a LongMemEval file of JSON lines, one answerable question each."""
    conversations = (_longmemeval_conversation(item) for item in _read_json_lines(path))
    return [
        conversation
        for conversation in conversations
        if not conversation.id.endswith("_abs") and conversation.questions[0].evidence
    ]


def read_faq(folder: Path) -> Faq:
    """Return the documents and dialogs of a folder: ``documents.jsonl`` or ``.jsonl.gz``, and ``dialogues*.json``."""
    documents = (
        OrgDocument(item["id"], item["text"], item.get("metadata") or {})
        for item in _read_json_lines(_documents_file(folder))
    )
    items = [
        item for path in sorted(folder.glob("dialogues*.json")) for item in json.loads(path.read_text(encoding="utf-8"))
    ]
    return Faq(tuple(documents), tuple(map(_faq_dialog, items)))


def org_set_names(folder: Path) -> list[str]:
    """Return the names of the sets of an organization's documents in a folder."""
    return sorted(path.name.removesuffix(_CORPUS) for path in folder.glob(f"*{_CORPUS}"))


def read_org(folder: Path, name: str) -> Faq:
    """Return a set of an organization's documents; questions without gold ids ask for documents of their kind.

    Such a question is one of the documents itself, which does not count.
    """
    documents = tuple(
        OrgDocument(item["id"], item["text"], item.get("metadata") or {})
        for item in _read_json_lines(folder / f"{name}{_CORPUS}")
    )
    by_intent: defaultdict[Any, set[str]] = defaultdict(set)
    for document in documents:
        by_intent[document.metadata.get("intent")].add(document.id)
    dialogs = []
    for item in _read_json_lines(folder / f"{name}.questions.jsonl.gz"):
        sides = [(role == "user", Utterance(str(place), text)) for place, (role, text) in enumerate(item["before"])]
        gold = tuple(item.get("gold") or sorted(by_intent[item["kind"]] - {item["id"]}))
        call = _make_call(str(item["id"]), sides, _FAQ_DATE)
        dialogs.append(Conversation(call.id, "", "", (call,), (Question(item["text"], gold),)))
    return Faq(documents, tuple(dialogs))


class Noise:
    """A simulated speech recognizer that loses or replaces every tenth word at random.

    5 % of the words are dropped, and 5 % are replaced by the word of the set's vocabulary with the most similar
    spelling. Capitals and punctuation are removed. The result for a text is the same in every run, whatever came before
    it.
    """

    drop_rate = 0.05
    replace_rate = 0.05
    compared_words = 24

    def __init__(self, texts: Iterable[str], seed: int = 0) -> None:
        """Use the words of ``texts``, all texts of a set, as the vocabulary of replacements."""
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
        """Return a text as recognized: never empty, unless the text is."""
        chance = random.Random(f"{self._seed} {text}")
        words = _split_words(text)
        heard = []
        for word in words:
            roll = chance.random()
            if roll >= self.drop_rate:
                heard.append(self.closest_word(word) if roll < self.drop_rate + self.replace_rate else word)
        return " ".join(heard or words[:1])

    def closest_word(self, word: str) -> str:
        """Return the other word with the most similar spelling (difflib's ratio), or the word itself without one."""
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
        """Return the other words with the most letter pairs in common with this one: few enough to compare each."""
        pairs = _letter_pairs(word)
        holders = [self._words_with_pair[pair] for pair in pairs if pair in self._words_with_pair]
        if not holders:
            return []
        shared = np.bincount(np.concatenate(holders), minlength=len(self._vocabulary))
        likeness = 2 * shared / (self._pair_counts + len(pairs))  # Dice's coefficient
        best = np.argsort(-likeness, kind="stable")[: self.compared_words].tolist()
        return [self._vocabulary[number] for number in best if shared[number] and self._vocabulary[number] != word]


def make_noise(conversations: Iterable[Conversation], seed: int = 0) -> Noise:
    """Return the noise of a recognizer that knows the words of these conversations."""
    conversations = list(conversations)
    said = (utterance.text for conversation in conversations for utterance in conversation.utterances())
    asked = (question.text for conversation in conversations for question in conversation.questions)
    return Noise([*said, *asked], seed)


def _map_call_text(call: Call, transform: TextTransform) -> Call:
    def transform_side(side: Utterance) -> Utterance:
        return attrs.evolve(side, text=transform(side.text)) if side.text else side

    exchanges = (
        attrs.evolve(exchange, user=transform_side(exchange.user), assistant=transform_side(exchange.assistant))
        for exchange in call.exchanges
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
            (turn["speaker"] == caller, Utterance(turn["dia_id"], turn["text"])) for turn in dialog[f"session_{number}"]
        ]
        calls.append(_make_call(f"session-{number}", sides, began_at))
    utterance_ids = {
        utterance.id
        for call in calls
        for exchange in call.exchanges
        for utterance in (exchange.user, exchange.assistant)
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
    sides = [(turn["role"] == "user", Utterance(str(position), turn["text"])) for position, turn in enumerate(before)]
    gold = item["gold"]
    question = Question(last["text"], tuple([gold] if isinstance(gold, str) else gold))
    return Conversation(str(item["id"]), "", "", (_make_call(str(item["id"]), sides, _FAQ_DATE),), (question,))


def _make_call(call_id: str, sides: Iterable[tuple[bool, Utterance]], began_at: datetime) -> Call:
    """Return a call of utterances, each with whether the caller made it."""
    exchanges = (
        Exchange(f"turn-{number}", user, assistant, began_at + number * _EXCHANGE_INTERVAL)
        for number, (user, assistant) in enumerate(_pair_sides(sides))
    )
    return Call(call_id, tuple(exchanges))


def _pair_sides(sides: Iterable[tuple[bool, Utterance]]) -> Iterator[tuple[Utterance, Utterance]]:
    """Yield what the caller said and what the agent answered; either may be missing."""
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
    """Return the time of a LongMemEval date: 2023/12/21 (Thu) 21:31."""
    return datetime.strptime(re.sub(r" \(\w+\)", "", text), "%Y/%m/%d %H:%M").replace(tzinfo=timezone.utc)


def _first_item(pair: tuple[datetime, Any]) -> datetime:
    return pair[0]


def _documents_file(folder: Path) -> Path:
    for name in ("documents.jsonl", "documents.jsonl.gz"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: neither documents.jsonl nor documents.jsonl.gz")


def _read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the objects of a file of JSON lines, compressed or not."""
    read = partial(gzip.open, mode="rt") if path.suffix == ".gz" else open
    with read(path, encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _split_words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)*", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def _letter_pairs(word: str) -> frozenset[str]:
    """Return the pairs of adjacent letters in a word; its beginning and its end count as letters."""
    marked = f"^{word}$"
    return frozenset(map("".join, pairwise(marked)))
