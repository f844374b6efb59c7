"""Recall quality: the share of evidence that is found in memories of calls and in documents, compared with peers.

LoCoMo and LongMemEval: each conversation is saved through the SDK call by call, then each question is asked in a new
session with default budgets. The strict figure is the share of LoCoMo's evidence whose text is in ``contextText``, and
the share of LongMemEval's evidence that is among the first six turns of the permanent lane. Below it are the figures
that others publish: whether any evidence is among the first five turns, and the share of the sessions with evidence
that are among the first five sessions. FAQ and organization (``--org``: a folder with several sets): each dialog is
saved up to its last turn, which is the query for five documents; the score is whether a document that answers it is
among them, and whether it is the first.

"unnamed": without the names of the speakers. "noisy": everything that was said and asked as a speech recognizer might
send it, with 5 % of the words lost and 5 % replaced, without capitals and punctuation; documents stay as written.

Peers: BM25 (bm25s with its defaults), BM25 + stem (Snowball's stems of the set's language; pairs of characters in
Chinese), and with --minilm also all-MiniLM-L6-v2 and the sum of BM25 and it (z-scores). They rank the same utterances,
exchanges or chunks of documents, and get as many characters (LoCoMo) or items (the others) as memoair. BM25 + talk
ranks by the last turn and the two exchanges before it, where there is a talk.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
from recall_data import (
    Call,
    Conversation,
    Faq,
    OrgDocument,
    make_noise,
    org_set_names,
    read_faq,
    read_locomo,
    read_longmemeval,
    read_org,
)
from recall_peers import MiniLm, Peers, fill_context
from recall_table import print_table
from rich.console import Console
from rich.progress import track

from memoair_index import split_document
from memoair_voice_sync import MemoAirVoiceMemorySync, SearchResult

ANY_PORT = "http://127.0.0.1:0"
TOKEN = "benchmark"  # noqa: S105 - of a runtime that runs for a minute
# Long, because this measures quality, not speed: a busy machine must not change the result.
TIMEOUT_MS = 10_000
TIMEOUT_S = 15
HITS = 6
DOCUMENTS = 5
# How many turns before the question BM25 + talk gets: best in the FAQ, where it finds .08 without them, .15 with all of
# them and .31 with these.
PEER_TURNS = 4
OURS = "memoair"
TOP_SESSIONS = 5
MANY_HITS = 40  # in which there are as many sessions, as a rule
# What counts, by kind of set; the names of further figures say it themselves.
STRICT = {
    "locomo": "each utterance, whole, in the text for the model",
    "longmemeval": f"each turn among {HITS}",
    "faq": f"any right document among {DOCUMENTS}",
    "org": f"any right document among {DOCUMENTS}",
}
AS_FIRST = "the first document is right"
ANY_TURN = "any turn among 5 (hit@5)"
SESSIONS = f"sessions among {TOP_SESSIONS}"
LANGUAGES = {"de": "german", "ru": "russian", "zh": "chinese"}  # by the end of a set's name


@attrs.frozen
class Answer:
    """The result of one question: the share of its evidence that each system found."""

    shares: Mapping[str, float]
    ms: float
    is_degraded: bool  # a lane was late, and what it would have found counts as missed
    kind: str = ""
    characters: int = 0
    further: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)  # by what counts: the shares of each system


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
    rows = [*ROWS, *(Row(name, name, "org") for name in (org_set_names(arguments.org) if arguments.org else ()))]
    for row in rows:
        path = getattr(arguments, row.set_name)
        if path is None or (arguments.only and row.name not in arguments.only):
            continue
        began_at = time.perf_counter()
        answers = list(measure_row(row, path, minilm, console))
        results[row.name] = _summarize(row, answers) | {"seconds": round(time.perf_counter() - began_at)}
    if arguments.json:
        print(json.dumps(results))
    else:
        print_table(results)
    return 0


def measure_row(row: Row, path: Path, minilm: MiniLm | None, console: Console) -> Iterator[Answer]:
    """Yield the answers to all questions of a row."""

    def with_progress(conversations: Sequence[Conversation]) -> Iterable[Conversation]:
        return track(conversations, row.label, console=console, disable=not console.is_terminal, transient=True)

    if row.set_name in ("faq", "org"):
        faq = read_faq(path) if row.set_name == "faq" else read_org(path, row.name)
        faq = Faq(faq.documents, tuple(_make_variant(row, faq.dialogs)))
        language = LANGUAGES.get(row.name.rpartition("_")[2], "english")
        yield from measure_documents(faq.documents, with_progress(faq.dialogs), minilm, language)
        return
    read, ask = (read_locomo, measure_locomo) if row.set_name == "locomo" else (read_longmemeval, measure_longmemeval)
    for conversation in with_progress(_make_variant(row, read(path))):
        yield from ask(conversation, minilm)


def measure_locomo(conversation: Conversation, minilm: MiniLm | None) -> Iterator[Answer]:
    """Save a conversation, ask its questions, and look for the evidence in the context."""
    texts = {utterance.id: utterance.text for utterance in conversation.utterances()}
    lines = list(texts.values())
    turn_ids = _turn_ids(conversation)
    turn_by_utterance = {utterance_id: turn for turn, ids in turn_ids.items() for utterance_id in ids}
    turns = [turn_by_utterance[utterance_id] for utterance_id in texts]
    peers = Peers(lines, minilm)
    with start_runtime(conversation) as runtime:
        runtime.save_conversation(conversation)
        for number, question in enumerate(conversation.questions):
            with runtime.start_session(f"question-{number}") as client:
                reply, ms = search(client, question.text)
                many, _ = search(client, question.text, top_k={"permanent": MANY_HITS})
            budget = len(reply.contextText)
            rankings = peers.rankings(question.text)
            contexts = {name: fill_context(lines, ranking, budget) for name, ranking in rankings.items()}
            found = {OURS: _turns_found(many)}
            found |= {name: [turns[position] for position in ranking] for name, ranking in rankings.items()}
            wanted = {turn for turn, ids in turn_ids.items() if ids.intersection(question.evidence)}
            evidence = [texts[utterance_id] for utterance_id in question.evidence]
            shares = {
                name: _share_found(text, evidence) for name, text in {OURS: reply.contextText, **contexts}.items()
            }
            yield Answer(shares, ms, is_degraded(reply), question.kind, budget, _published_figures(found, wanted))


def measure_longmemeval(conversation: Conversation, minilm: MiniLm | None) -> Iterator[Answer]:
    """Save a conversation, ask its questions, and look for the evidence among the permanent lane's turns."""
    turn_ids = _turn_ids(conversation)
    turns = list(turn_ids)
    peers = Peers([exchange.text for _, exchange in conversation.exchanges()], minilm)
    with start_runtime(conversation) as runtime:
        runtime.save_conversation(conversation)
        for number, question in enumerate(conversation.questions):
            with runtime.start_session(f"question-{number}") as client:
                reply, ms = search(client, question.text)
                many, _ = search(client, question.text, top_k={"permanent": MANY_HITS})
            found = {OURS: _turns_found(reply)}
            for name, ranking in peers.rankings(question.text).items():
                found[name] = [turns[position] for position in ranking]
            wanted = {turn for turn, ids in turn_ids.items() if ids.intersection(question.evidence)}
            shares = {
                name: len(wanted.intersection(turns_found[:HITS])) / len(wanted) for name, turns_found in found.items()
            }
            further = _published_figures(found | {OURS: _turns_found(many)}, wanted)
            yield Answer(shares, ms, is_degraded(reply), question.kind, further=further)


def measure_documents(
    documents: Sequence[OrgDocument], dialogs: Iterable[Conversation], minilm: MiniLm | None, language: str
) -> Iterator[Answer]:
    """Load the documents, save each dialog, ask its last turn, and look for an answer among the first documents."""
    chunks = [chunk for each in documents for chunk in split_document(each.id, each.text, each.metadata)]
    ids = [chunk.group for chunk in chunks]
    peers = Peers([chunk.text for chunk in chunks], minilm, language)
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
                for name, ranking in peers.rankings(question.text, said).items():
                    ranked = (ids[number] for number in ranking)
                    found[name] = list(islice(dict.fromkeys(islice(ranked, MANY_HITS)), DOCUMENTS))
                gold = set(question.evidence)
                shares = {name: float(not gold.isdisjoint(found_ids)) for name, found_ids in found.items()}
                first = {name: float(not gold.isdisjoint(found_ids[:1])) for name, found_ids in found.items()}
                yield Answer(shares, ms, is_degraded(reply), further={AS_FIRST: first})


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


def _turn_ids(conversation: Conversation) -> dict[tuple[str, str], set[str]]:
    """Return the ids of the utterances of each turn, by the ids of its call and itself."""
    return {
        (call_id, exchange.id): {exchange.user.id, exchange.assistant.id}
        for call_id, exchange in conversation.exchanges()
    }


def _turns_found(reply: SearchResult) -> list[tuple[str, str]]:
    sources = [hit["source"] for hit in reply.permanent]
    return list(dict.fromkeys((source["sessionId"], source["turnId"]) for source in sources))


def _published_figures(
    found: Mapping[str, Sequence[tuple[str, str]]], wanted: Collection[tuple[str, str]]
) -> dict[str, dict[str, float]]:
    """Return the figures that others publish; they are less strict, and say little about what a model is given."""
    sessions = {call_id for call_id, _ in wanted}
    first_sessions = {
        name: set(islice(dict.fromkeys(call_id for call_id, _ in turns), TOP_SESSIONS)) for name, turns in found.items()
    }
    return {
        ANY_TURN: {name: float(any(turn in wanted for turn in turns[:5])) for name, turns in found.items()},
        SESSIONS: {name: len(sessions & first) / len(sessions) for name, first in first_sessions.items()},
    }


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
        "set": row.set_name,
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
    summary["counts"] = STRICT[row.set_name]
    summary["further"] = {name: _means(answer.further[name] for answer in answers) for name in answers[0].further}
    if answers[0].characters:
        summary["characters"] = round(statistics.mean(answer.characters for answer in answers))
    return summary


def _means(shares: Iterable[Mapping[str, float]]) -> dict[str, float]:
    rows = list(shares)
    return {name: round(statistics.mean(row[name] for row in rows), 3) for name in rows[0]}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locomo", type=Path, metavar="FILE", help="a LoCoMo JSON file")
    parser.add_argument("--longmemeval", type=Path, metavar="FILE", help="LongMemEval-S as .jsonl or .jsonl.gz")
    parser.add_argument("--faq", type=Path, metavar="FOLDER", help="with documents.jsonl(.gz) and dialogues*.json")
    parser.add_argument(
        "--org", type=Path, metavar="FOLDER", help="with NAME.corpus.jsonl.gz and NAME.questions.jsonl.gz"
    )
    parser.add_argument("--minilm", type=Path, metavar="FOLDER", help="with model.onnx and tokenizer.json")
    parser.add_argument("--only", metavar="ROWS", help=f"measure only some of {','.join(row.name for row in ROWS)}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    if not (arguments.locomo or arguments.longmemeval or arguments.faq or arguments.org):
        parser.error("nothing to measure: give --locomo, --longmemeval, --faq or --org")
    arguments.only = arguments.only.split(",") if arguments.only else []
    unknown = set(arguments.only) - {row.name for row in ROWS}
    unknown -= {*(org_set_names(arguments.org) if arguments.org else ())}
    if unknown:
        parser.error(f"--only: unknown rows: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
