"""Speed of a recall at growing sizes, compared with its floor and with other search systems in the same run.

All systems get the same texts and questions: SIZE documents and 500 turns of earlier calls (1,000 items, caller and
agent separately), in generated words with the frequencies of a natural language. Each system answers 20 questions to
warm up and then CALLS others; it returns the texts of what it found, the peers those of the best 10.

memoair          through the SDK, from the call to the result: a separate process, over loopback HTTP
floor            the same transport, for a reply of the same size from a server that does nothing else
chroma           in process, questions embedded by MiniLM (ONNX) padded to 256 tokens, which is Chroma's default
chroma-unpadded  the same without padding, for which Chroma has no option
tantivy          in process, its default tokenizer, any of the words
sqlite-fts5      in process, SQLite's full-text search, ranked by its BM25, any of the words
bm25s            in process, with its defaults
memvid           in process, lexical search, any of the words

Each system runs in two processes of its own: one fills a store on disk, and one opens it and answers. "load" is the
time from that bare process to the first complete answer, "ingest" the time to fill the store, both including imports.
"memory" is the growth of the answering process from before it imported and opened anything until after the last answer,
child processes included in full: for memoair the SDK in the application and the whole runtime, for the others library,
model and index. On Linux it is PSS, which counts the touched pages of a mapped file, and shared pages by their share;
elsewhere it is USS. The system's file cache is not included.

"to floor" is memoair's median divided by the floor's, "to memoair" a peer's divided by memoair's: above 1 the peer is
slower.

Chroma's texts have random vectors, because embedding 100,000 texts takes hours; the embedding of the questions is real.
Other work on the machine slows everything, most of all the embedder, which uses every core. If other processes used
more than a tenth of the CPUs while a system loaded and answered, a line below the table says so; run it again.

Peers that are not installed (they come with the extra ``bench``), that fail, or that are skipped are listed with the
reason below the table.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import speed_peers as peers
from rich import box
from rich.console import Console
from rich.table import Table
from workload import Speech, measure_floor_times_ms

OURS = "memoair"
OTHER_PEERS = tuple(name for name in peers.PEERS if name != OURS)
TURNS = 500
JOB_TIMEOUT_S = 1_800
DISTURBED_SHARE = 0.1
DISTRIBUTIONS = ("memoair-voice", "chromadb", "onnxruntime", "tantivy", "bm25s", "memvid-sdk")

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    sizes: list[int]
    peers: list[str]
    calls: int
    minilm: Path | None
    memvid_up_to: int

    def skip_reason(self, name: str, size: int) -> str | None:
        """Return why a peer is not measured at a size, or None if it is."""
        if name.startswith("chroma") and self.minilm is None:
            return "needs --minilm FOLDER, which tools/export_minilm.py makes"
        if name == "memvid" and size > self.memvid_up_to:
            return (
                f"takes minutes to fill its store, so it is measured only up to {self.memvid_up_to:,} (--memvid-up-to)"
            )
        return None


def main() -> int:
    """Run the benchmark and print the table."""
    arguments = _make_parser().parse_args()
    plan = Plan(arguments.sizes, arguments.peers, arguments.calls, arguments.minilm, arguments.memvid_up_to)
    result = measure(plan)
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def measure(plan: Plan) -> dict[str, Any]:
    """Measure everything at every size."""
    sizes = {str(size): measure_size(plan, size) for size in plan.sizes}
    return {
        "calls": plan.calls,
        "cpus": os.cpu_count(),
        "memory": "PSS" if sys.platform == "linux" else "USS",
        "versions": _installed_versions(),
        "sizes": sizes,
        "memoairToSizeBefore": _median_growth(sizes),
    }


def measure_size(plan: Plan, size: int) -> dict[str, Row]:
    """Measure memoair, its floor and the other peers at one size."""
    progress = Console(stderr=True)
    rows: dict[str, Row] = {}
    stores: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="memoair-recall-speed-") as folder:
        workload = Path(folder)
        write_workload(workload, size, plan.calls)
        for name in (OURS, *plan.peers):
            if progress.is_terminal:
                progress.print(f"{size:,} documents: {name}")
            reason = plan.skip_reason(name, size)
            rows[name] = {"leftOut": reason} if reason else measure_peer(name, workload, plan.minilm, stores)
            if name == OURS and "leftOut" not in rows[OURS]:
                rows["floor"] = measure_floor(workload, statistics.median(rows[OURS]["sizes"]), plan.calls)
    return _add_ratios({name: _summarize(row) for name, row in rows.items()})


def write_workload(folder: Path, size: int, calls: int) -> None:
    """Write texts and questions; the documents are generated last, so that each size includes those of smaller ones."""
    speech = Speech()
    turns = [(speech.sentence(15), speech.sentence(15)) for _ in range(TURNS)]
    questions = [speech.sentence(8) for _ in range(peers.WARM_UP + calls)]
    (folder / "turns.json").write_text(json.dumps(turns))
    (folder / "questions.json").write_text(json.dumps(questions))
    with (folder / "documents.jsonl").open("w") as lines:
        for number in range(size):
            lines.write(json.dumps({"id": f"doc-{number}", "text": speech.sentence(40)}) + "\n")


def measure_peer(name: str, workload: Path, minilm: Path | None, stores: dict[str, Row]) -> Row:
    """Fill a peer's store in one process, unless it was filled for another peer, and search it in another."""
    owner = peers.STORES.get(name, name)
    store = workload / owner
    arguments = [str(workload), str(store), *(("--minilm", str(minilm)) if minilm else ())]
    # Files that a terminated worker leaves in its temporary folder are deleted with the workload.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(workload))
    if owner not in stores:
        store.mkdir()
        stores[owner] = run_job(["ingest", owner, *arguments], environment)
    if "leftOut" in stores[owner]:
        return stores[owner]
    return stores[owner] | run_job(["answer", name, *arguments], environment)


def run_job(job: list[str], environment: dict[str, str]) -> Row:
    """Run a worker and return what it measured, or why it failed."""
    command = [sys.executable, peers.__file__, *job]
    try:
        completed = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=JOB_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        output = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        return {"leftOut": f"{job[0]}: {output[-1]}"}
    except subprocess.TimeoutExpired:
        return {"leftOut": f"{job[0]}: not finished after {JOB_TIMEOUT_S:,} s"}
    result: Row = json.loads(completed.stdout.splitlines()[-1])  # libraries may print before it
    return result


def measure_floor(workload: Path, reply_bytes: float, calls: int) -> Row:
    """Measure replies of as many bytes as memoair's from a server that does nothing else."""
    question = json.loads((workload / "questions.json").read_bytes())[0]
    times_ms = measure_floor_times_ms(round(reply_bytes), {"query": question}, peers.WARM_UP + calls)
    return {"timesMs": times_ms[peers.WARM_UP :], "sizes": [round(reply_bytes)]}


def _summarize(row: Row) -> Row:
    if "leftOut" in row:
        return row
    summary = {
        "medianMs": round(statistics.median(row["timesMs"]), 3),
        "p99Ms": round(_p99(row["timesMs"]), 3),
        "answerBytes": round(statistics.median(row["sizes"])),
        "unanswered": sum(not size for size in row["sizes"]),
    }
    return summary | {
        name: round(row[name], 3) for name in ("memoryMb", "loadS", "ingestS", "othersCpu") if name in row
    }


def _add_ratios(rows: dict[str, Row]) -> dict[str, Row]:
    ours = rows[OURS].get("medianMs")
    for name, row in rows.items():
        if ours is None or "medianMs" not in row:
            continue
        if name == OURS:
            row["toFloor"] = round(ours / rows["floor"]["medianMs"], 2)
        else:
            row["toMemoair"] = round(row["medianMs"] / ours, 2)
    return rows


def _median_growth(sizes: dict[str, dict[str, Row]]) -> dict[str, float]:
    medians = [(size, rows[OURS]["medianMs"]) for size, rows in sizes.items() if "medianMs" in rows[OURS]]
    return {size: round(median / before, 2) for (_, before), (size, median) in itertools.pairwise(medians)}


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _installed_versions() -> dict[str, str]:
    found = {"sqlite": sqlite3.sqlite_version}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # its row gives the reason
    return found


def _print(result: dict[str, Any]) -> None:
    console = Console()
    table = Table(
        "docu-\nments",
        "\nsystem",
        title=f"{result['calls']} calls, {result['cpus']} CPUs",
        box=box.SIMPLE,
        collapse_padding=True,  # fits 80 columns
    )
    columns = {
        "median\nms": "medianMs",
        "p99\nms": "p99Ms",
        "to\nfloor": "toFloor",
        "to\nmemoair": "toMemoair",
        f"{result['memory']}\nMB": "memoryMb",
        "load\ns": "loadS",
        "ingest\ns": "ingestS",
    }
    for title in columns:
        table.add_column(title, justify="right")
    for size, rows in result["sizes"].items():
        table.add_section()
        for name, row in rows.items():
            if "leftOut" not in row:
                table.add_row(f"{int(size):,}", name, *(_format_number(row.get(key)) for key in columns.values()))
    console.print(table)
    for note in _make_notes(result):
        console.print(note, highlight=False, soft_wrap=True, markup=False)


def _format_number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # three significant digits


def _make_notes(result: dict[str, Any]) -> Iterator[str]:
    sizes = list(result["sizes"])
    for size, growth in result["memoairToSizeBefore"].items():
        before = sizes[sizes.index(size) - 1]
        yield f"memoair at {int(size):,} documents: {growth}x its median at {int(before):,}"
    for size, rows in result["sizes"].items():
        for name, row in rows.items():
            if "leftOut" in row:
                yield f"{name} at {int(size):,} skipped: {row['leftOut']}"
            elif row["unanswered"]:
                yield f"{name} at {int(size):,} gave no complete answer to {row['unanswered']} questions"
        disturbed = {name: row["othersCpu"] for name, row in rows.items() if row.get("othersCpu", 0) > DISTURBED_SHARE}
        if disturbed:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in disturbed.items())
            yield f"disturbed at {int(size):,} by other processes, which used this share of the CPUs: {shares}"
    yield ", ".join(f"{name} {version}" for name, version in result["versions"].items())


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=_parse_sizes, default=[1_000, 10_000, 100_000], help="numbers of documents (1000,10000,100000)"
    )
    parser.add_argument("--calls", type=_parse_positive, default=500, help="measured questions (default: %(default)s)")
    parser.add_argument(
        "--minilm", type=_parse_model_folder, metavar="FOLDER", help="the embedder for the chroma peers"
    )
    parser.add_argument(
        "--peers",
        type=_parse_peers,
        default=list(OTHER_PEERS),
        metavar="A,B",
        help=f"some of {', '.join(OTHER_PEERS)} (default: all)",
    )
    parser.add_argument(
        "--memvid-up-to",
        type=int,
        default=1_000,
        metavar="SIZE",
        help="the largest size for memvid (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _parse_sizes(text: str) -> list[int]:
    return sorted({_parse_positive(part) for part in text.split(",")})


def _parse_positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _parse_peers(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in OTHER_PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown peers: {', '.join(unknown)}; choose from {', '.join(OTHER_PEERS)}")
    return names


def _parse_model_folder(text: str) -> Path:
    folder = Path(text).resolve()
    for name in ("model.onnx", "tokenizer.json"):
        if not (folder / name).is_file():
            raise argparse.ArgumentTypeError(f"{text} has no {name}")
    return folder


if __name__ == "__main__":
    sys.exit(main())
