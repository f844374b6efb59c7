"""How much of the evidence stands in the context: LoCoMo through the SDK, beside plain BM25.

Saves each conversation of a LoCoMo file (snap-research/LoCoMo, ``data/locomo10.json``; Maharana et al., 2024) session
by session, as calls of the first speaker to an agent who is the second. Asks each question of the categories 1 to 4 in
a new session with default budgets, and counts the share of its evidence turns whose text stands in ``contextText``.
Beside it: plain BM25 (bm25s, defaults) over the same turns, filled to the same number of characters.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import bm25s
from rich.console import Console
from rich.progress import track
from rich.table import Table

from memoair_voice_sync import MemoAirVoiceMemorySync

CATEGORIES = {1: "several facts", 2: "time", 3: "outside knowledge", 4: "one fact"}
ANY_PORT = "http://127.0.0.1:0"
TOKEN = "benchmark"  # noqa: S105 - of a runtime that lives for a minute
# The floor is quality, not speed: a busy machine must not change the result.
PATIENT_MS = 10_000


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a LoCoMo JSON file")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    conversations = json.loads(arguments.data.read_text(encoding="utf-8"))
    shares: dict[str, dict[int, list[float]]] = {"memoair": defaultdict(list), "bm25": defaultdict(list)}
    times_ms: list[float] = []
    characters: list[int] = []
    console = Console(stderr=True)
    for item in track(conversations, "conversations", console=console, disable=not console.is_terminal):
        for category, ours, plain, ms, length in ask_all(item):
            shares["memoair"][category].append(ours)
            shares["bm25"][category].append(plain)
            times_ms.append(ms)
            characters.append(length)
    result = {
        "questions": len(times_ms),
        "evidence": {name: _means(by_category) for name, by_category in shares.items()},
        "characters": round(statistics.mean(characters)),
        "searchMs": {"median": round(statistics.median(times_ms), 2), "p99": round(_p99(times_ms), 2)},
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def ask_all(item: dict[str, Any]) -> Iterator[tuple[int, float, float, float, int]]:
    """Save one conversation and ask its questions; yield category, our share, BM25's share, ms and characters."""
    conversation = item["conversation"]
    caller, agent = conversation["speaker_a"], conversation["speaker_b"]
    texts: dict[str, str] = {}
    identity: dict[str, Any] = {"project_id": "locomo", "user_id": str(item["sample_id"])}
    opening = {"user": {"id": identity["user_id"], "name": caller}, "assistantName": agent}
    with (
        tempfile.TemporaryDirectory(prefix="memoair-locomo-") as root,
        MemoAirVoiceMemorySync(
            **identity, runtime_url=ANY_PORT, runtime_token=TOKEN, storage_root=root, session_id="host"
        ) as host,
    ):
        url = host.runtime_url(timeout_s=15)

        def session(session_id: str) -> MemoAirVoiceMemorySync:
            return MemoAirVoiceMemorySync(
                **identity, runtime_url=url, runtime_token=TOKEN, session_id=session_id, auto_start_runtime=False
            )

        for name, utterances, began_at in sessions(conversation):
            with session(name) as call:
                call.start_session(opening)
                for number, (user, reply) in enumerate(exchanges(utterances, caller)):
                    spoken_at = began_at + timedelta(seconds=20 * number)
                    metadata = {"occurredAt": spoken_at.isoformat(), "assistantName": agent}
                    call.after_turn(_said(user), _said(reply), f"turn-{number}", metadata=metadata, timeout_s=10)
            texts |= {utterance["dia_id"]: utterance["text"] for utterance in utterances}
        plain = PlainBm25(texts)
        for number, question in enumerate(item["qa"]):
            evidence = [
                texts[turn] for turn in re.findall(r"D\d+:\d+", " ".join(question["evidence"])) if turn in texts
            ]
            if question["category"] not in CATEGORIES or not evidence:
                continue
            with session(f"question-{number}") as call:
                call.start_session(opening)
                asked_at = time.perf_counter()
                context = call.search_memory(question["question"], timeout_ms=PATIENT_MS).contextText
                ms = (time.perf_counter() - asked_at) * 1e3
            given = plain.fill(question["question"], len(context))
            yield question["category"], _share(evidence, context), _share(evidence, given), ms, len(context)


def sessions(conversation: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]], datetime]]:
    """The sessions of a conversation in order, each with the moment it began."""
    numbers = sorted(int(name.split("_")[1]) for name in conversation if re.fullmatch(r"session_\d+", name))
    for number in numbers:
        told = conversation[f"session_{number}_date_time"]  # 1:56 pm on 8 May, 2023
        began_at = datetime.strptime(told.upper(), "%I:%M %p ON %d %B, %Y").replace(tzinfo=timezone.utc)
        yield f"session-{number}", conversation[f"session_{number}"], began_at


def exchanges(utterances: list[dict[str, Any]], caller: str) -> Iterator[tuple[Any, Any]]:
    """Pairs of what the caller said and what the agent answered; either may be missing."""
    waiting = None
    for utterance in utterances:
        if utterance["speaker"] == caller:
            if waiting is not None:
                yield waiting, None
            waiting = utterance
        else:
            yield waiting, utterance
            waiting = None
    if waiting is not None:
        yield waiting, None


class PlainBm25:
    """What anybody would build in an afternoon: bm25s over the turns, best first, until the room is used up."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = list(texts.values())
        self._retriever = bm25s.BM25()
        self._retriever.index(bm25s.tokenize(self._texts, stopwords="en", show_progress=False), show_progress=False)

    def fill(self, question: str, room: int) -> str:
        """The best turns for a question, in at most ``room`` characters."""
        tokens = bm25s.tokenize([question], stopwords="en", show_progress=False)
        ranked, _ = self._retriever.retrieve(tokens, k=len(self._texts), show_progress=False)
        chosen = []
        for number in ranked[0]:
            text = self._texts[number]
            if len(text) + 1 <= room:
                chosen.append(text)
                room -= len(text) + 1
        return "\n".join(chosen)


def _said(utterance: dict[str, Any] | None) -> str:
    return "" if utterance is None else str(utterance["text"])


def _share(evidence: list[str], context: str) -> float:
    plain = " ".join(context.split())
    return sum(" ".join(text.split()) in plain for text in evidence) / len(evidence)


def _means(by_category: dict[int, list[float]]) -> dict[str, float]:
    everything = [share for shares in by_category.values() for share in shares]
    means = {CATEGORIES[category]: statistics.mean(shares) for category, shares in sorted(by_category.items())}
    return {name: round(mean, 3) for name, mean in {"all": statistics.mean(everything), **means}.items()}


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _print(result: dict[str, Any]) -> None:
    names = list(result["evidence"]["memoair"])
    table = Table("share of evidence turns in contextText", *names)
    for system, label in (("memoair", "memoair, default budgets"), ("bm25", "plain BM25, same characters")):
        table.add_row(label, *(f"{result['evidence'][system][name]:.3f}" for name in names))
    ratios = [result["evidence"]["memoair"][name] / result["evidence"]["bm25"][name] for name in names]
    table.add_row("ratio", *(f"{ratio:.2f}" for ratio in ratios))
    console = Console()
    console.print(table)
    times = result["searchMs"]
    console.print(
        f"{result['questions']} questions, {result['characters']} characters of context on average, "
        f"search {times['median']} ms median, {times['p99']} ms p99"
    )


if __name__ == "__main__":
    sys.exit(main())
