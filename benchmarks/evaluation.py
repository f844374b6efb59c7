"""Cases of an evaluation in a second, and what a case costs compared with a plain search by the same engine.

The documents have tags. Every case is another caller, with turns and facts that are given and a talk before the
question, so nothing of one case serves the next one. A case takes: building the caller's memory, the search, the
context at the default budgets and at half, the trace, and the scores. A plain search is one over a memory that is open,
in the same process and in turns with the cases. Processor time counts other load on the machine less than elapsed time.
"""

import argparse
import json
import os
import random
import statistics
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from workload import TOPICS, Speech

from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.case import CURRENT_SESSION, RecallCase, parse_case
from memoair_evaluation.engine import Engine, EngineDocuments, open_engine
from memoair_evaluation.forked_run import open_results
from memoair_evaluation.given import user_of
from memoair_evaluation.scoring import aggregate

GIVEN_TURNS = 12
GIVEN_FACTS = 4
TALK_TURNS = 2
_WARM_UP = 20
# A good third of the words of English speech are of these. Without them, every text would be taken for a foreign one.
_FUNCTION_WORDS = "the a i you it is was and to of in my that for on with have do can we they your".split()


class EnglishSpeech:
    """Generated sentences with the word frequencies of a natural language, and the function words of English."""

    def __init__(self) -> None:
        self._speech = Speech()
        self._random = random.Random(20261130)

    def sentence(self, words: int) -> str:
        """Return a sentence of so many words."""
        content = iter(self._speech.sentence(words).removesuffix(".").lower().split())
        picked = [
            self._random.choice(_FUNCTION_WORDS) if self._random.random() < 0.4 else next(content) for _ in range(words)
        ]
        return " ".join(picked).capitalize() + "."


def main() -> int:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="documents (default: %(default)s)")
    parser.add_argument("--cases", type=int, default=1_000, help="cases (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    result = measure(arguments.documents, arguments.cases, arguments.processes)
    if arguments.json:
        print(json.dumps(result))
    else:
        table = Table("figure", "value")
        for name, value in result.items():
            table.add_row(name, str(value))
        Console().print(table)
    return 0


def measure(document_count: int, case_count: int, processes: int) -> dict[str, Any]:
    """Return the figures."""
    speech = EnglishSpeech()
    topics = [speech.sentence(2).removesuffix(".") for _ in range(TOPICS)]
    documents = [
        {
            "indexName": "faq",
            "id": f"doc-{number}",
            "text": speech.sentence(40),
            "metadata": {"topic": topics[number % TOPICS]},
        }
        for number in range(document_count)
    ]
    cases = [_make_case(speech, number, documents[number * 7 % document_count]) for number in range(case_count)]
    started_at = time.perf_counter()
    with open_engine(EngineDocuments(documents=documents)) as engine:
        opened_s = time.perf_counter() - started_at
        for case in cases[:_WARM_UP]:
            engine.run_case(case)
        ratio = _measure_ratio(engine, cases[: max(100, case_count // 5)])
        started_at, used_s = time.perf_counter(), _processor_s()
        with open_results(engine, cases, RecallSettings(), processes) as opened:
            results = list(opened)
        elapsed_s, used_s = time.perf_counter() - started_at, _processor_s() - used_s
    scores = aggregate(result.scores for result in results)
    return {
        "documents": document_count,
        "cases": case_count,
        "processes": processes,
        "openS": round(opened_s, 2),
        "elapsedS": round(elapsed_s, 2),
        "casesPerS": round(case_count / elapsed_s, 1),
        "processorMsPerCase": round(used_s * 1e3 / case_count, 3),
        "casesPerProcessorS": round(case_count / used_s, 1),
        **ratio,
        "recalled": scores.recalled,
        "recalledHalf": scores.recalled_half,
    }


def _make_case(speech: EnglishSpeech, number: int, document: dict[str, Any]) -> RecallCase:
    words = document["text"].removesuffix(".").split()
    turns = [
        {"user": speech.sentence(15), "assistant": speech.sentence(15), "sessionId": f"call-{turn // 4}"}
        for turn in range(GIVEN_TURNS)
    ]
    return parse_case(
        {
            "id": f"case-{number}",
            "question": " ".join(words[8:18]) + "?",
            "given": {
                "profile": {"name": "Dana"},
                "facts": [speech.sentence(8) for _ in range(GIVEN_FACTS)],
                "turns": turns,
            },
            "talk": [{"user": speech.sentence(10), "assistant": speech.sentence(10)} for _ in range(TALK_TURNS)],
            "must": [{"document": document["id"]}, {"turn": "given-3"}, {"text": " ".join(words[8:12])}],
            "mustNot": [{"document": "doc-1"}],
        }
    )


def _measure_ratio(engine: Engine, cases: list[RecallCase]) -> dict[str, float]:
    """Return the medians of a case and of a plain search, in milliseconds of processor time, taken in turns."""
    case_ms, search_ms = [], []
    for case in cases:
        began = time.thread_time()
        engine.run_case(case)
        case_ms.append((time.thread_time() - began) * 1e3)
        memory = engine.open_user(user_of(case))
        memory.search({"sessionId": CURRENT_SESSION, "query": "the other question?"})
        began = time.thread_time()
        memory.search({"sessionId": CURRENT_SESSION, "query": case.question})
        search_ms.append((time.thread_time() - began) * 1e3)
    case_median, search_median = statistics.median(case_ms), statistics.median(search_ms)
    return {
        "caseMs": round(case_median, 3),
        "plainSearchMs": round(search_median, 3),
        "caseToPlainSearch": round(case_median / search_median, 2),
    }


def _processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    raise SystemExit(main())
