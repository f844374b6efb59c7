"""Recall quality: the share of evidence that is found in LoCoMo, LongMemEval-S and a spoken FAQ, compared with peers.

LoCoMo and LongMemEval: each conversation is saved through the SDK call by call, then each question is asked in a new
session with default budgets. The score is the share of LoCoMo's evidence whose text is in ``contextText``, and the
share of LongMemEval's evidence that is among the first six turns of the permanent lane. FAQ: each dialog is saved up to
its last turn, which is the query for five documents; the score is whether a document that answers it is among them.

"unnamed": without the names of the speakers. "noisy": everything that was said and asked as a speech recognizer might
send it, with 5 % of the words lost and 5 % replaced, without capitals and punctuation; documents stay as written.

Peers: BM25 (bm25s with its defaults), and with --minilm also all-MiniLM-L6-v2 and the sum of both (z-scores). They rank
the same utterances, exchanges or documents, and get as many characters (LoCoMo) or items (the others) as memoair. In
the FAQ they rank by the last turn and the two exchanges before it, which is best for them.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from recall_data import Call, Conversation, OrgDocument, make_noise, read_faq, read_locomo, read_longmemeval
from recall_peers import MiniLm, Peers, fill_context
from rich.console import Console
from rich.progress import track
from rich.table import Table

from memoair_voice_sync import MemoAirVoiceMemorySync, SearchResult

ANY_PORT = "http://127.0.0.1:0"
TOKEN = "benchmark"  # noqa: S105 - of a runtime that runs for a minute
# Long, because this measures quality, not speed: a busy machine must not change the result.
TIMEOUT_MS = 10_000
TIMEOUT_S = 15
HITS = 6
DOCUMENTS = 5
# How many turns before the question the peers get: best for BM25, which finds .08 without them, .15 with all of them
# and .31 with these.
PEER_TURNS = 4
TABLE_WIDTH = 160  # when the output is not a terminal
OURS = "memoair"
SYSTEMS = {OURS: OURS, "bm25": "BM25", "minilm": "MiniLM", "sum": "BM25 + MiniLM"}


@attrs.frozen
class Answer:
    """The result of one question: the share of its evidence that each system found."""

    shares: Mapping[str, float]
    ms: float
    is_degraded: bool  # a lane was late, and what it would have found counts as missed
    kind: str = ""
    characters: int = 0
    first: Mapping[str, float] | None = None  # the shares if only the best item counts


@attrs.frozen
class Row:
    """One row of the table, with the required share (bar) and the desired one (goal)."""

    name: str
    label: str
    set_name: str
    bar: float | None = None
    goal: float | None = None


ROWS = (
    Row("locomo", "LoCoMo", "locomo", 0.80, 0.86),
    Row("locomo-unnamed", "LoCoMo, unnamed", "locomo", 0.74),
    Row("locomo-noisy", "LoCoMo, noisy", "locomo", 0.72),
    Row("longmemeval", "LongMemEval-S", "longmemeval", 0.86, 0.92),
    Row("longmemeval-noisy", "LongMemEval-S, noisy", "longmemeval"),
    Row("faq", "spoken FAQ", "faq", 0.52, 0.70),
    Row("faq-noisy", "spoken FAQ, noisy", "faq"),
)


def main() -> int:
    """Run the benchmark and print the table."""
    arguments = _parse_arguments()
    console = Console(stderr=True)
    minilm = MiniLm(arguments.minilm) if arguments.minilm else None
    results = {}
    for row in ROWS:
        path = getattr(arguments, row.set_name)
        if path is None or (arguments.only and row.name not in arguments.only):
            continue
        began_at = time.perf_counter()
        answers = list(measure_row(row, path, minilm, console))
        results[row.name] = _summarize(row, answers) | {"seconds": round(time.perf_counter() - began_at)}
    if arguments.json:
        print(json.dumps(results))
    else:
        _print(results)
    return 0


def measure_row(row: Row, path: Path, minilm: MiniLm | None, console: Console) -> Iterator[Answer]:
    """Yield the answers to all questions of a row."""

    def with_progress(conversations: Sequence[Conversation]) -> Iterable[Conversation]:
        return track(conversations, row.label, console=console, disable=not console.is_terminal, transient=True)

    if row.set_name == "faq":
        faq = read_faq(path)
        yield from measure_faq(faq.documents, with_progress(_make_variant(row, faq.dialogs)), minilm)
        return
    read, ask = (read_locomo, measure_locomo) if row.set_name == "locomo" else (read_longmemeval, measure_longmemeval)
    for conversation in with_progress(_make_variant(row, read(path))):
        yield from ask(conversation, minilm)


def measure_locomo(conversation: Conversation, minilm: MiniLm | None) -> Iterator[Answer]:
    """Save a conversation, ask its questions, and look for the evidence in the context."""
    texts = {utterance.id: utterance.text for utterance in conversation.utterances()}
    lines = list(texts.values())
    peers = Peers(lines, minilm)
    with start_runtime(conversation) as runtime:
        runtime.save_conversation(conversation)
        for number, question in enumerate(conversation.questions):
            with runtime.start_session(f"question-{number}") as client:
                reply, ms = search(client, question.text)
            budget = len(reply.contextText)
            contexts = {
                name: fill_context(lines, ranking, budget) for name, ranking in peers.rankings(question.text).items()
            }
            evidence = [texts[utterance_id] for utterance_id in question.evidence]
            shares = {
                name: _share_found(text, evidence) for name, text in {OURS: reply.contextText, **contexts}.items()
            }
            yield Answer(shares, ms, is_degraded(reply), question.kind, budget)


def measure_longmemeval(conversation: Conversation, minilm: MiniLm | None) -> Iterator[Answer]:
    """Save a conversation, ask its questions, and look for the evidence among the permanent lane's turns."""
    exchanges = [
        (call_id, exchange.id, {exchange.user.id, exchange.assistant.id})
        for call_id, exchange in conversation.exchanges()
    ]
    keys = [(call_id, turn_id) for call_id, turn_id, _ in exchanges]
    peers = Peers([exchange.text for _, exchange in conversation.exchanges()], minilm)
    with start_runtime(conversation) as runtime:
        runtime.save_conversation(conversation)
        for number, question in enumerate(conversation.questions):
            with runtime.start_session(f"question-{number}") as client:
                reply, ms = search(client, question.text)
            sources = [hit["source"] for hit in reply.permanent[:HITS]]
            found = {OURS: [(source["sessionId"], source["turnId"]) for source in sources]}
            for name, ranking in peers.rankings(question.text).items():
                found[name] = [keys[position] for position in ranking[:HITS]]
            wanted = {(call_id, turn_id) for call_id, turn_id, ids in exchanges if ids.intersection(question.evidence)}
            shares = {name: len(wanted.intersection(keys_found)) / len(wanted) for name, keys_found in found.items()}
            yield Answer(shares, ms, is_degraded(reply), question.kind)


def measure_faq(
    documents: Sequence[OrgDocument], dialogs: Iterable[Conversation], minilm: MiniLm | None
) -> Iterator[Answer]:
    """Load the documents, save each dialog, ask its last turn, and look for an answer among the first documents."""
    ids = [document.id for document in documents]
    peers = Peers([document.text for document in documents], minilm)
    with tempfile.TemporaryDirectory(prefix="memoair-recall-") as folder:
        org_file = Path(folder) / "documents.jsonl"
        org_file.write_text(
            "".join(json.dumps(attrs.asdict(document)) + "\n" for document in documents), encoding="utf-8"
        )
        with start_runtime(Conversation("faq", "", "", (), ()), org_file) as runtime:
            runtime.wait_until_ready()
            for dialog in dialogs:
                (call,), (question,) = dialog.calls, dialog.questions
                with runtime.start_session(call.id) as client:
                    runtime.save_call(client, call)
                    reply, ms = search(client, question.text, top_k={"org": DOCUMENTS})
                found = {OURS: [hit["id"] for hit in reply.org[:DOCUMENTS]]}
                said = [utterance.text for utterance in dialog.utterances()][-PEER_TURNS:]
                for name, ranking in peers.rankings(" ".join([*said, question.text])).items():
                    found[name] = [ids[number] for number in ranking[:DOCUMENTS]]
                gold = set(question.evidence)
                shares = {name: float(not gold.isdisjoint(found_ids)) for name, found_ids in found.items()}
                first = {name: float(not gold.isdisjoint(found_ids[:1])) for name, found_ids in found.items()}
                yield Answer(shares, ms, is_degraded(reply), first=first)


class CallerRuntime:
    """The runtime of one caller, and the sessions in it."""

    def __init__(self, runtime: MemoAirVoiceMemorySync, caller: Conversation, identity: Mapping[str, Any]) -> None:
        self._runtime = runtime
        self._identity = identity
        self._url = runtime.runtime_url(timeout_s=TIMEOUT_S)
        self._session_names = {"assistantName": caller.agent} if caller.agent else {}
        self._user = {"id": caller.id} | ({"name": caller.caller} if caller.caller else {})

    @contextmanager
    def start_session(self, session_id: str) -> Iterator[MemoAirVoiceMemorySync]:
        """Start a session with the names that are known."""
        with MemoAirVoiceMemorySync(
            **self._identity, runtime_url=self._url, session_id=session_id, auto_start_runtime=False
        ) as client:
            client.start_session({"user": self._user, **self._session_names}, timeout_s=TIMEOUT_S)
            yield client

    def save_conversation(self, conversation: Conversation) -> None:
        """Save a conversation, each call in its session."""
        for call in conversation.calls:
            with self.start_session(call.id) as client:
                self.save_call(client, call)

    def save_call(self, client: MemoAirVoiceMemorySync, call: Call) -> None:
        """Save the turns of a call."""
        for exchange in call.exchanges:
            metadata = {"occurredAt": exchange.spoken_at.isoformat(), **self._session_names}
            client.after_turn(
                exchange.user.text, exchange.assistant.text, exchange.id, metadata=metadata, timeout_s=TIMEOUT_S
            )

    def wait_until_ready(self) -> None:
        """Wait until no lane is loading."""
        with self.start_session("waiting") as client:
            give_up_at = time.monotonic() + 4 * TIMEOUT_S
            while is_degraded(search(client, "ready?")[0]):
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"the documents are not loaded after {4 * TIMEOUT_S} s")


@contextmanager
def start_runtime(caller: Conversation, org_file: Path | None = None) -> Iterator[CallerRuntime]:
    """Start a runtime for a caller in a temporary folder."""
    identity = {"project_id": "recall", "user_id": caller.id, "runtime_token": TOKEN}
    with (
        tempfile.TemporaryDirectory(prefix="memoair-recall-") as root,
        MemoAirVoiceMemorySync(
            **identity, runtime_url=ANY_PORT, storage_root=root, org_file=str(org_file) if org_file else None
        ) as runtime,
    ):
        yield CallerRuntime(runtime, caller, identity)


def search(client: MemoAirVoiceMemorySync, question: str, **options: Any) -> tuple[SearchResult, float]:
    """Search, and return the result and the duration in milliseconds."""
    began_at = time.perf_counter()
    reply = client.search_memory(question, timeout_ms=TIMEOUT_MS, **options)
    return reply, (time.perf_counter() - began_at) * 1e3


def is_degraded(reply: SearchResult) -> bool:
    """Return whether a lane is missing in a result."""
    return bool(reply.trace["degraded"])


def _make_variant(row: Row, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    if row.name.endswith("-unnamed"):
        return [conversation.without_names() for conversation in conversations]
    if row.name.endswith("-noisy"):
        noise = make_noise(conversations)
        return [conversation.map_text(noise) for conversation in conversations]
    return conversations


def _share_found(context: str, evidence: Sequence[str]) -> float:
    plain = " ".join(context.split())
    return sum(" ".join(text.split()) in plain for text in evidence) / len(evidence)


def _summarize(row: Row, answers: Sequence[Answer]) -> dict[str, Any]:
    times = sorted(answer.ms for answer in answers)
    by_kind: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_kind[answer.kind].append(answer)
    summary = {
        "label": row.label,
        "questions": len(answers),
        "degraded": sum(answer.is_degraded for answer in answers),
        "bar": row.bar,
        "goal": row.goal,
        **_means(answer.shares for answer in answers),
        "kinds": {kind: _means(answer.shares for answer in group) for kind, group in by_kind.items() if kind},
        "searchMs": {
            "median": round(statistics.median(times), 2),
            "p99": round(times[min(len(times) - 1, int(len(times) * 0.99))], 2),
        },
    }
    if answers[0].first:
        summary["first"] = _means(answer.first or {} for answer in answers)
    if answers[0].characters:
        summary["characters"] = round(statistics.mean(answer.characters for answer in answers))
    return summary


def _means(shares: Iterable[Mapping[str, float]]) -> dict[str, float]:
    rows = list(shares)
    return {name: round(statistics.mean(row[name] for row in rows), 3) for name in rows[0]}


def _print(results: Mapping[str, Mapping[str, Any]]) -> None:
    systems = [name for name in SYSTEMS if any(name in result for result in results.values())]
    table = Table("share of the evidence found", "questions", "bar", "goal", *(SYSTEMS[name] for name in systems))
    table.add_column("search ms, median / p99")
    for result in results.values():
        times = f"{result['searchMs']['median']} / {result['searchMs']['p99']}"
        limits = [_format_share(result["bar"], 2), _format_share(result["goal"], 2)]
        cells = [_format_share(result[name]) for name in systems]
        table.add_row(result["label"], str(result["questions"]), *limits, *cells, times)
        if "first" in result:
            cells = [_format_share(result["first"][name]) for name in systems]
            table.add_row("  as the first document", "", "", "", *cells, "")
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(table)
    for result in results.values():
        if result["degraded"]:
            console.print(f"{result['label']}: a lane was late in {result['degraded']} results; the share is too low")
    _print_kinds(results, systems, console)


def _print_kinds(results: Mapping[str, Mapping[str, Any]], systems: Sequence[str], console: Console) -> None:
    for set_name in dict.fromkeys(row.set_name for row in ROWS):
        rows = [results[row.name] for row in ROWS if row.set_name == set_name and row.name in results]
        kinds = sorted({kind for result in rows for kind in result["kinds"]})
        if not kinds:
            continue
        table = Table("by kind of question", "", *kinds)
        for result in rows:
            for name in systems:
                cells = [_format_share(result["kinds"][kind][name]) for kind in kinds]
                table.add_row(result["label"], SYSTEMS[name], *cells)
        console.print(table)


def _format_share(share: float | None, digits: int = 3) -> str:
    return "" if share is None else f"{share:.{digits}f}"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locomo", type=Path, metavar="FILE", help="a LoCoMo JSON file")
    parser.add_argument("--longmemeval", type=Path, metavar="FILE", help="LongMemEval-S as .jsonl or .jsonl.gz")
    parser.add_argument("--faq", type=Path, metavar="FOLDER", help="with documents.jsonl(.gz) and dialogues*.json")
    parser.add_argument("--minilm", type=Path, metavar="FOLDER", help="with model.onnx and tokenizer.json")
    parser.add_argument("--only", metavar="ROWS", help=f"measure only some of {','.join(row.name for row in ROWS)}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    if not (arguments.locomo or arguments.longmemeval or arguments.faq):
        parser.error("nothing to measure: give --locomo, --longmemeval or --faq")
    arguments.only = arguments.only.split(",") if arguments.only else []
    unknown = set(arguments.only) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"--only: unknown rows: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
