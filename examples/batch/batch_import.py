"""Keep the calls of transcripts: in parallel, resumable, and each turn once however often it is run.

    python batch_import.py calls/*.jsonl --project proj_acme --agent agent_returns --done calls.done

For what this machine or a cloud is to remember of calls that are over. ``memoair import`` does the same, and more; this
is the program to copy if yours reads another format, or has to decide about each call.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError
from memoair_voice_sync.transcripts import Rejection, TranscriptOptions, read_transcript

_TRIES = 3
_WAITING = 4  # calls for each thread: enough to keep them busy, and no more in memory


@dataclass(frozen=True)
class Call:
    """A call as a file tells it, and a mark that is another one as soon as the file tells another call."""

    user_id: str
    session_id: str
    turns: list[dict[str, Any]]
    mark: str


@dataclass
class Outcome:
    """What became of it. Turns that were known before count as kept."""

    calls: int = 0
    turns: int = 0
    skipped: int = 0  # calls that an earlier run has kept
    refused: int = 0  # lines
    failed: dict[str, int] = field(default_factory=dict)  # calls, by the code of what failed

    @property
    def exit_code(self) -> int:
        """0 all is kept, 1 some lines were refused, 3 some calls failed: run it again."""
        return 3 if self.failed else 1 if self.refused else 0


class Done:
    """The marks of the calls that are kept, in an SQLite file: what a run that was stopped need not do again.

    It holds hashes only, and may be lost: then everything is told again, and is known.
    """

    def __init__(self, path: Path) -> None:
        self._table = sqlite3.connect(path)
        with self._table:
            self._table.execute("create table if not exists done (mark text primary key) strict, without rowid")

    def __contains__(self, mark: str) -> bool:
        return self._table.execute("select 1 from done where mark = ?", (mark,)).fetchone() is not None

    def add(self, mark: str) -> None:
        """Note a call that is on the disk."""
        with self._table:
            self._table.execute("insert or ignore into done values (?)", (mark,))

    def close(self) -> None:
        """Close the file."""
        self._table.close()


def read_calls(path: Path, options: TranscriptOptions, refused: list[Rejection]) -> list[Call]:
    """The calls of a file, each with all of its turns; lines that are none are added to ``refused``.

    The file is held in memory: larger ones than that are for ``memoair import``.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with path.open("rb") as stream:
        for item in read_transcript(stream, path.name, options):
            if isinstance(item, Rejection):
                refused.append(item)
                continue
            metadata = dict(item.metadata)
            if item.occurred_at is not None:
                metadata["occurredAt"] = item.occurred_at.isoformat()
            found.setdefault((item.user_id, item.session_id), []).append(
                {
                    "turn_id": item.turn_id,
                    "user_text": item.user_text,
                    "assistant_text": item.assistant_text,
                    "metadata": metadata,
                }
            )
    return [Call(user, session, turns, _mark(user, session, turns)) for (user, session), turns in found.items()]


def keep(client: MemoAirVoiceClientSync, call: Call) -> None:
    """Keep a call; raises `MemoAirVoiceMemoryError` after some tries, each of which finds what the one before kept."""
    for left in reversed(range(_TRIES)):
        try:
            client.import_call(call.session_id, call.turns, user={"id": call.user_id})
        except MemoAirVoiceMemoryError:
            if not left:
                raise
        else:
            return


def run(client: MemoAirVoiceClientSync, calls: Iterable[Call], done: Done, outcome: Outcome, *, threads: int) -> None:
    """Keep the calls with so many threads, noting each in ``done`` once it is on the disk."""
    under_way: dict[Future[None], Call] = {}
    with ThreadPoolExecutor(threads, "batch") as pool:
        try:
            for call in calls:
                if call.mark in done:
                    outcome.skipped += 1
                    continue
                if len(under_way) >= threads * _WAITING:
                    _settle(under_way, done, outcome)
                under_way[pool.submit(keep, client, call)] = call
            while under_way:
                _settle(under_way, done, outcome)
        except BaseException:  # Ctrl-C: what is under way ends, and is told again by the next run
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main(arguments: list[str] | None = None) -> int:
    """Run it as a command."""
    parser = _parser()
    told = parser.parse_args(arguments)
    if missing := [str(path) for path in told.files if not path.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    outcome = Outcome()
    client = MemoAirVoiceClientSync(
        api_key=os.environ.get("MEMOAIR_API_KEY", "memoair_pk_local"),
        project_id=told.project,
        agent_id=told.agent,
        cloud_base_url=os.environ.get("MEMOAIR_BASE_URL") or None,
        storage_root=told.storage_root,
        runtime_port_range=told.ports,
        max_concurrent_users=2 * told.threads,  # a caller's runtime goes once those after him want its place
        runtime_idle_ttl_s=10,
    )
    with client, closing(Done(told.done)) as done, _opened(told.refused) as refusals:
        calls = _all_calls(told.files, TranscriptOptions(user_id=told.user), refusals, outcome)
        try:
            run(client, calls, done, outcome, threads=told.threads)
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 130
    print(json.dumps({name: getattr(outcome, name) for name in ("calls", "turns", "skipped", "refused", "failed")}))
    return outcome.exit_code


def _all_calls(files: Iterable[Path], options: TranscriptOptions, refusals: TextIO, outcome: Outcome) -> Iterator[Call]:
    for path in files:
        refused: list[Rejection] = []
        yield from read_calls(path, options, refused)
        outcome.refused += len(refused)
        for each in refused:
            print(each, file=refusals)  # file, line and reason; never what it says


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stderr
        return
    with path.open("a", encoding="utf-8") as file:
        yield file


def _settle(under_way: dict[Future[None], Call], done: Done, outcome: Outcome) -> None:
    ended, _ = wait(under_way, return_when=FIRST_COMPLETED)
    for future in ended:
        call = under_way.pop(future)
        try:
            future.result()
        except MemoAirVoiceMemoryError as error:
            outcome.failed[error.code] = outcome.failed.get(error.code, 0) + 1
            continue
        except ValueError:  # an id that the memory has for itself, as __org__
            outcome.failed["call.unfit"] = outcome.failed.get("call.unfit", 0) + 1
            continue
        done.add(call.mark)
        outcome.calls += 1
        outcome.turns += len(call.turns)


def _mark(user_id: str, session_id: str, turns: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps([user_id, session_id, turns], sort_keys=True).encode()).hexdigest()


def _ports(told: str) -> tuple[int, int]:
    first, _, last = told.partition("-")
    return int(first), int(last)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Keep the calls of transcripts, each turn once.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON lines or 'Speaker: text'")
    parser.add_argument("--project", required=True)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--user", help="who calls, in files that do not say it")
    parser.add_argument("--done", type=Path, default=Path("batch.done"), help="what is kept already")
    parser.add_argument("--refused", type=Path, help="where refusals go; default standard error")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--storage-root", help="default: the platform's folder for user data")
    parser.add_argument("--ports", type=_ports, default=(7878, 7977), metavar="FIRST-LAST", help="for the runtimes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
