"""The systems that ``recall_speed.py`` compares, behind one interface.

Run as a script, this is a worker: it does one job with one peer in its own process and writes the measurements as one
line of JSON to standard output. It imports no peer's library at the top, because the memory of a peer is the growth of
its worker.
"""

import argparse
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

HITS = 10
WARM_UP = 20
SEED = 20261120
COLLECTION = "texts"


@dataclass(frozen=True)
class Task:
    """The input of a worker: the folders of the workload (shared by all peers), of the peer, and of the embedder."""

    workload: Path
    store: Path
    minilm: Path | None = None

    @property
    def documents_file(self) -> Path:
        """The organization's documents as JSON lines, ``{"id", "text"}``."""
        return self.workload / "documents.jsonl"

    def turns(self) -> list[list[str]]:
        """Return the turns of earlier calls as pairs of what the caller said and what the agent answered."""
        turns: list[list[str]] = json.loads((self.workload / "turns.json").read_bytes())
        return turns

    def questions(self) -> list[str]:
        """Return the questions to ask, the warm-up first."""
        questions: list[str] = json.loads((self.workload / "questions.json").read_bytes())
        return questions

    def texts(self) -> list[str]:
        """Return every document and every side of a turn in one list, for peers that do not distinguish them."""
        with self.documents_file.open(encoding="utf-8") as lines:
            documents = [json.loads(line)["text"] for line in lines]
        return documents + [side for turn in self.turns() for side in turn]


class Peer(Protocol):
    """A system that stores texts and finds those that match a question."""

    def __init__(self, task: Task) -> None: ...

    def ingest(self) -> None:
        """Put all texts into the store, so that another process can open it."""

    def open(self) -> None:
        """Open the store for questions."""

    def ask(self, question: str) -> Any:
        """Find the best matches, with their texts."""

    def size(self, answer: Any) -> int:
        """Return the size of an answer in bytes; 0 if it is empty or incomplete."""

    def close(self) -> None:
        """Release all resources."""


class MemoAir:
    """This project, through its SDK: documents in the org lane, turns of an earlier call in the permanent one."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def ingest(self) -> None:
        """Start a runtime on the documents and save the turns."""
        self._start()
        for number, (said, answered) in enumerate(self._task.turns()):
            self._memory.after_turn(said, answered, f"turn-{number}", timeout_s=10)
        self._memory.end_session()
        self.close()

    def open(self) -> None:
        """Start a runtime and a new session, and wait until all lanes are loaded."""
        self._start()

    def ask(self, question: str) -> Any:
        """Search all lanes with the default budgets."""
        return self._memory.search_memory(question, timeout_ms=self._timeout_ms)

    def size(self, answer: Any) -> int:
        """Return the size of the reply as JSON, which the floor's server has to send."""
        if answer.trace["degraded"]:
            return 0
        return len(json.dumps(vars(answer), ensure_ascii=False, separators=(",", ":")).encode())

    def close(self) -> None:
        """Stop the runtime."""
        self._memory.close()

    def _start(self) -> None:
        from workload import ANY_PORT, TIMEOUT_MS, wait_until_ready

        from memoair_voice_sync import MemoAirVoiceMemorySync

        self._timeout_ms = TIMEOUT_MS
        self._memory = MemoAirVoiceMemorySync(
            project_id="bench",
            user_id="caller",
            runtime_url=ANY_PORT,
            storage_root=str(self._task.store),
            org_file=str(self._task.documents_file),
        )
        self._memory.start_session({"user": {"id": "caller", "name": "Dana"}}, timeout_s=30)
        wait_until_ready(self._memory, self._task.questions()[0])


class TextPeer:
    """Base class of the peers whose answer is a list of texts."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def size(self, answer: list[str]) -> int:
        """Return the size of the texts in bytes."""
        return sum(len(text.encode()) for text in answer)

    def close(self) -> None:
        """Do nothing: open resources end with the process."""


class Chroma(TextPeer):
    """Chroma in process, on disk, with its defaults: each question is embedded by MiniLM, padded to 256 tokens.

    The texts have random vectors, because embedding 100,000 texts takes hours and only questions are timed.
    """

    padded_to: int | None = 256

    def ingest(self) -> None:
        """Add the texts with random vectors from a fixed seed."""
        import numpy as np

        texts = self._task.texts()
        vectors = np.random.default_rng(SEED).standard_normal((len(texts), MiniLm.DIMENSIONS), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        client = self._client()
        collection = client.create_collection(
            COLLECTION, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        step = client.get_max_batch_size()
        for start in range(0, len(texts), step):
            batch = slice(start, start + step)
            ids = [str(number) for number in range(start, start + len(texts[batch]))]
            collection.add(ids=ids, documents=texts[batch], embeddings=vectors[batch])

    def open(self) -> None:
        """Open the collection and load the model."""
        assert self._task.minilm is not None
        self._embedder = MiniLm(self._task.minilm, self.padded_to)
        self._collection = self._client().get_collection(COLLECTION, embedding_function=None)

    def ask(self, question: str) -> list[str]:
        """Embed the question and search for the nearest vectors."""
        found = self._collection.query(
            query_embeddings=[self._embedder.embed(question)], n_results=HITS, include=["documents"]
        )
        texts: list[str] = found["documents"][0]
        return texts

    def _client(self) -> Any:
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        return chromadb.PersistentClient(str(self._task.store), settings=settings)


class ChromaUnpadded(Chroma):
    """Chroma with the same embedder without padding: the fastest it can be."""

    padded_to = None


class MiniLm:
    """all-MiniLM-L6-v2 through onnxruntime with its default threads, as Chroma's ``ONNXMiniLM_L6_V2`` runs it."""

    DIMENSIONS = 384
    MAX_TOKENS = 256

    def __init__(self, folder: Path, padded_to: int | None) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(self.MAX_TOKENS)
        if padded_to:
            self._tokenizer.enable_padding(length=padded_to)
        else:
            self._tokenizer.no_padding()
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def embed(self, text: str) -> Any:
        """Return the normalized mean of the tokens' embeddings."""
        import numpy as np

        encoded = self._tokenizer.encode(text)
        mask = np.array([encoded.attention_mask], dtype=np.int64)
        feed = {"input_ids": np.array([encoded.ids], dtype=np.int64), "attention_mask": mask}
        (tokens,) = self._session.run(["token_embeddings"], feed)
        mean = (tokens * mask[:, :, None]).sum(axis=1)[0] / mask.sum()
        return mean / np.linalg.norm(mean)


class Tantivy(TextPeer):
    """Tantivy in process, on disk, with its default tokenizer."""

    def ingest(self) -> None:
        """Write one index and wait until its segments are merged."""
        import tantivy

        schema = tantivy.SchemaBuilder().add_text_field("text", stored=True).build()
        writer = tantivy.Index(schema, path=str(self._task.store)).writer()
        for text in self._task.texts():
            writer.add_document(tantivy.Document(text=[text]))
        writer.commit()
        writer.wait_merging_threads()

    def open(self) -> None:
        """Open the index."""
        import tantivy

        self._index = tantivy.Index.open(str(self._task.store))

    def ask(self, question: str) -> list[str]:
        """Search for any of the words, without counting all hits, so that most of them can be skipped."""
        searcher = self._index.searcher()
        query, _ = self._index.parse_query_lenient(question, ["text"])
        hits = searcher.search(query, HITS, count=False).hits
        return [searcher.doc(address).get_first("text") for _, address in hits]


class SqliteFts5(TextPeer):
    """SQLite's full-text search from the standard library, ranked by its BM25."""

    def ingest(self) -> None:
        """Fill one table in one transaction and merge its b-trees."""
        with self._connect() as connection:
            connection.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")
            connection.executemany("INSERT INTO texts VALUES (?)", ((text,) for text in self._task.texts()))
            connection.execute("INSERT INTO texts(texts) VALUES ('optimize')")
        connection.close()

    def open(self) -> None:
        """Open the database."""
        self._connection = self._connect()

    def ask(self, question: str) -> list[str]:
        """Search for any of the words."""
        rows = self._connection.execute(
            "SELECT text FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT ?", (_or_query(question, '"{}"'), HITS)
        )
        return [text for (text,) in rows]

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._task.store / "texts.db")


class Bm25s(TextPeer):
    """bm25s with its defaults: scores for every text in sparse matrices."""

    def ingest(self) -> None:
        """Index the texts and save the index with them."""
        import bm25s

        texts = self._task.texts()
        retriever = bm25s.BM25()
        retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
        retriever.save(self._task.store, corpus=texts)

    def open(self) -> None:
        """Load the index and the texts."""
        import bm25s

        self._tokenize = bm25s.tokenize
        self._retriever = bm25s.BM25.load(self._task.store, load_corpus=True)

    def ask(self, question: str) -> list[str]:
        """Rank by the words of the question."""
        tokens = self._tokenize([question], show_progress=False)
        documents, _ = self._retriever.retrieve(tokens, k=HITS, show_progress=False)
        return [document["text"] for document in documents[0]]


class Memvid(TextPeer):
    """memvid (memvid-sdk 2): one file, lexical search, no vectors.

    For a plain question it requires all words, and finds nothing for most; here the query asks for any of them.
    """

    _FILE = "texts.mv2"
    _BATCH = 500  # version 2.0.160 deadlocks on a batch of 2,000

    def ingest(self) -> None:
        """Add all texts in batches."""
        texts = [
            {"title": f"{number}", "label": "text", "text": text} for number, text in enumerate(self._task.texts())
        ]
        with _import_memvid().create(str(self._task.store / self._FILE), enable_vec=False) as memory:
            for start in range(0, len(texts), self._BATCH):
                memory.put_many(texts[start : start + self._BATCH])

    def open(self) -> None:
        """Open the file for reading."""
        self._memory = _import_memvid().use("basic", str(self._task.store / self._FILE), mode="open", read_only=True)

    def ask(self, question: str) -> list[str]:
        """Search for any of the words."""
        found = self._memory.find(_or_query(question, "{}"), k=HITS, mode="lex")
        return [hit["snippet"] for hit in found["hits"]]

    def close(self) -> None:
        """Close the file."""
        self._memory.close()


PEERS: dict[str, Callable[[Task], Peer]] = {
    "memoair": MemoAir,
    "chroma": Chroma,
    "chroma-unpadded": ChromaUnpadded,
    "tantivy": Tantivy,
    "sqlite-fts5": SqliteFts5,
    "bm25s": Bm25s,
    "memvid": Memvid,
}

# Peers that open another peer's store.
STORES = {"chroma-unpadded": "chroma"}


def measure_ingest(peer: Peer) -> dict[str, Any]:
    """Measure how long it takes to ingest all texts, imports included."""
    began_at = time.perf_counter()
    peer.ingest()
    return {"ingestS": time.perf_counter() - began_at}


def measure_answers(peer: Peer, questions: Sequence[str]) -> dict[str, Any]:
    """Measure each answer, and the time and memory that opening takes."""
    bare_mb = memory_mb()
    other_cpu = OtherCpuUsage()
    began_at = time.perf_counter()
    peer.open()
    peer.ask(questions[0])
    load_s = time.perf_counter() - began_at
    for question in questions[1:WARM_UP]:
        peer.ask(question)
    times_ms, sizes = zip(*_time_answers(peer, questions[WARM_UP:]), strict=True)
    result = {
        "loadS": load_s,
        "timesMs": times_ms,
        "sizes": sizes,
        "memoryMb": memory_mb() - bare_mb,
        "othersCpu": other_cpu.share(),
    }
    peer.close()
    return result


def memory_mb() -> float:
    """Return the memory of this process and all its children: PSS on Linux, USS elsewhere."""
    infos = [process.memory_full_info() for process in _own_processes()]
    return float(sum(getattr(info, "pss", info.uss) for info in infos)) / 1e6


class OtherCpuUsage:
    """The share of all CPUs that other processes used since its creation; they slow what is measured."""

    def __init__(self) -> None:
        self._began_at = time.perf_counter()
        self._busy_s, self._own_s = self._cpu_times_s()

    def share(self) -> float:
        """Return the share from 0 to 1, exact to some 20 ms, the resolution of the system's counters."""
        busy_s, own_s = self._cpu_times_s()
        others_s = (busy_s - self._busy_s) - (own_s - self._own_s)
        capacity_s = (time.perf_counter() - self._began_at) * (psutil.cpu_count() or 1)
        return min(max(others_s / capacity_s, 0.0), 1.0)

    @staticmethod
    def _cpu_times_s() -> tuple[float, float]:
        total = psutil.cpu_times()
        own = [process.cpu_times() for process in _own_processes()]
        return total.user + total.system, sum(times.user + times.system for times in own)


def main() -> int:
    """Do one job and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("ingest", "answer"))
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("workload", type=Path, help="the folder with the texts and questions")
    parser.add_argument("store", type=Path, help="the folder that the peer may fill")
    parser.add_argument("--minilm", type=Path, help="the folder with the embedder")
    arguments = parser.parse_args()
    task = Task(arguments.workload, arguments.store, arguments.minilm)
    peer = PEERS[arguments.peer](task)
    result = measure_ingest(peer) if arguments.job == "ingest" else measure_answers(peer, task.questions())
    print(json.dumps(result))
    return 0


def _time_answers(peer: Peer, questions: Sequence[str]) -> Iterator[tuple[float, int]]:
    for question in questions:
        began_at = time.perf_counter()
        found = peer.ask(question)
        yield (time.perf_counter() - began_at) * 1e3, peer.size(found)


def _own_processes() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _or_query(question: str, template: str) -> str:
    return " OR ".join(template.format(word) for word in re.findall(r"\w+", question))


def _import_memvid() -> Any:
    # A benchmark sends no telemetry and has no account.
    os.environ["MEMVID_TELEMETRY"] = "0"
    os.environ.pop("MEMVID_API_KEY", None)
    import memvid_sdk

    return memvid_sdk


if __name__ == "__main__":
    sys.exit(main())
