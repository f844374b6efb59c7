"""What prefetch gains: a search whose words were prefetched, compared with the same search without a prefetch.

Both are measured alternately in the same run. A prefetch returns as soon as it is handed over. With ``--locomo``, also
measure how often the words of a question as a recognizer sends them (no capitals, no punctuation) recall exactly what
the written question recalls, which is when a prefetch is used.
"""

import argparse
import json
import os
import random
import statistics
import string
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recall_data import read_locomo
from rich.console import Console
from rich.table import Table
from workload import TIMEOUT_MS, Speech, write_documents

from memoair_voice_sync import MemoAirVoiceClientSync

_PORTS = (20_000, 21_999)
_USER = {"id": "caller", "name": "Dana"}


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="documents of the organization (%(default)s)")
    parser.add_argument("--turns", type=int, default=500, help="turns of earlier calls (%(default)s)")
    parser.add_argument("--calls", type=int, default=300, help="searches of each kind (%(default)s)")
    parser.add_argument("--locomo", type=Path, help="a LoCoMo file, to compare recognized and written questions")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memoair-prefetch-") as folder:
        result = _measure_times(Path(folder), arguments)
        if arguments.locomo is not None:
            result |= _measure_agreement(Path(folder) / "locomo", arguments.locomo)
    if arguments.json:
        print(json.dumps(result))
        return 0
    table = Table(f"{arguments.documents} documents, {os.cpu_count()} CPUs", "median", "p99")
    for label, name in (("search", "plain"), ("search after a prefetch", "ahead"), ("prefetch", "handing")):
        table.add_row(label, f"{result[f'{name}Ms']:.3f} ms", f"{result[f'{name}P99Ms']:.3f} ms")
    table.add_row("after a prefetch / without", f"{result['ratio']:.3f}x", "")
    if "questions" in result:
        table.add_row(f"same recall, of {result['questions']:.0f} questions", f"{result['sameShare']:.4f}", "")
    Console().print(table)
    return 0


def _measure_times(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    speech, order = Speech(), random.Random(20261125)
    org_file = folder / "org.jsonl"
    write_documents(org_file, speech, arguments.documents)
    times: dict[str, list[float]] = {"plain": [], "ahead": [], "handing": []}
    with _make_client(folder / "storage", org_file=str(org_file)) as client:
        turns = [
            {"turn_id": f"{number}", "user_text": speech.sentence(15), "assistant_text": speech.sentence(15)}
            for number in range(arguments.turns)
        ]
        client.import_call("earlier", turns, user=_USER, timeout_s=600)
        client.load_index(user=_USER, timeout_s=60)
        for _ in range(arguments.calls):
            for name in order.sample(("plain", "ahead"), 2):
                query = speech.sentence(8)
                if name == "ahead":
                    times["handing"].append(
                        _time_ms(lambda q=query: client.prefetch(q.lower().rstrip("."), user=_USER))
                    )
                    _wait()
                took = _time_ms(lambda q=query, n=name: _search(client, q, is_prefetched=n == "ahead"))
                times[name].append(took)
    result = {f"{name}Ms": statistics.median(times_ms) for name, times_ms in times.items()}
    result |= {f"{name}P99Ms": statistics.quantiles(times_ms, n=100)[98] for name, times_ms in times.items()}
    return {**result, "ratio": result["aheadMs"] / result["plainMs"]}


def _search(client: MemoAirVoiceClientSync, query: str, *, is_prefetched: bool) -> None:
    found = client.search_memory(query, user=_USER, timeout_ms=TIMEOUT_MS)
    assert ("prefetched" in found.trace) == is_prefetched, found.trace
    assert not found.trace["degraded"], found.trace


def _measure_agreement(folder: Path, path: Path) -> dict[str, float]:
    """Measure for how many questions the written and the recognized form recall the same text."""
    same = asked = 0
    no_punctuation = str.maketrans(dict.fromkeys(string.punctuation.replace("'", ""), " "))
    with _make_client(folder) as client:
        for conversation in read_locomo(path):
            user = {"id": conversation.id, "name": conversation.caller}
            for call in conversation.calls:
                turns = [
                    {
                        "turn_id": exchange.id,
                        "user_text": exchange.user.text,
                        "assistant_text": exchange.assistant.text,
                        "metadata": {"occurredAt": exchange.spoken_at.isoformat()},
                    }
                    for exchange in call.exchanges
                ]
                client.import_call(call.id, turns, user=user, metadata={"assistantName": conversation.agent})
            client.load_index(user=user, timeout_s=60)
            for question in conversation.questions:
                recognized = " ".join(question.text.lower().translate(no_punctuation).split())
                contexts = [
                    client.search_memory(text, user=user, timeout_ms=TIMEOUT_MS).contextText
                    for text in (question.text, recognized)
                ]
                asked += 1
                same += contexts[0] == contexts[1]
    return {"questions": asked, "sameShare": same / asked}


def _make_client(root: Path, **more: Any) -> MemoAirVoiceClientSync:
    return MemoAirVoiceClientSync(
        api_key="memoair_pk_local",
        project_id="proj_bench",
        agent_id="agent_bench",
        cloud_base_url=None,
        runtime_port_range=_PORTS,
        storage_root=str(root),
        **more,
    )


def _time_ms(call: Any) -> float:
    began_at = time.perf_counter()
    call()
    return (time.perf_counter() - began_at) * 1e3


def _wait() -> None:
    """Wait as long as a caller takes to say the last word."""
    time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
