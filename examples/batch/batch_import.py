"""Import calls from transcripts: in parallel, resumable, and each turn once, no matter how often it is run.

    python batch_import.py calls/*.jsonl --project proj_acme --agent agent_returns --done calls.done

Use it for past calls that this machine or a cloud should remember. ``memoair import`` does the same and more. Copy this
program if yours reads another format, or has to decide about each call.
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

from memoair_transcripts import Rejection, TranscriptOptions, read_transcript
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

_MAX_TRIES = 3
_MAX_PENDING_PER_THREAD = 4  # calls in memory per thread: enough to keep the threads busy


@dataclass(frozen=True)
class TranscriptCall:
    """A call from a file.

    Attributes:
        user_id: The id of the caller.
        session_id: The id of the call.
        turns: The turns, as `MemoAirVoiceClientSync.import_call` takes them.
        fingerprint: A hash of all of the above. It changes if the file changes.
    """

    user_id: str
    session_id: str
    turns: list[dict[str, Any]]
    fingerprint: str


@dataclass
class ImportSummary:
    """The result of a run. Turns that were already known count as imported.

    Attributes:
        calls: The number of imported calls.
        turns: The number of imported turns.
        skipped: The number of calls that an earlier run has imported.
        refused: The number of lines that are not turns.
        failed: The number of calls that failed, by error code.
    """

    calls: int = 0
    turns: int = 0
    skipped: int = 0
    refused: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if everything was imported, 1 if lines were refused, 3 if calls failed and a second run may help."""
        return 3 if self.failed else 1 if self.refused else 0


class CompletedCalls:
    """The fingerprints of the imported calls, in an SQLite file, so that a restarted run skips them.

    The file contains only hashes. If it is lost, everything is sent again, and known turns are not saved twice.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        with self._database:
            self._database.execute("create table if not exists done (mark text primary key) strict, without rowid")

    def __contains__(self, fingerprint: str) -> bool:
        return self._database.execute("select 1 from done where mark = ?", (fingerprint,)).fetchone() is not None

    def add(self, fingerprint: str) -> None:
        """Record a call that is on disk."""
        with self._database:
            self._database.execute("insert or ignore into done values (?)", (fingerprint,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def read_calls(path: Path, options: TranscriptOptions, rejections: list[Rejection]) -> list[TranscriptCall]:
    """Return the calls of a file, each with all of its turns. Lines that are not turns are added to ``rejections``.

    The file must fit into memory. For larger ones use ``memoair import``.
    """
    turns_by_call: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with path.open("rb") as stream:
        for item in read_transcript(stream, path.name, options):
            if isinstance(item, Rejection):
                rejections.append(item)
                continue
            metadata = dict(item.metadata)
            if item.occurred_at is not None:
                metadata["occurredAt"] = item.occurred_at.isoformat()
            turns_by_call.setdefault((item.user_id, item.session_id), []).append(
                {
                    "turn_id": item.turn_id,
                    "user_text": item.user_text,
                    "assistant_text": item.assistant_text,
                    "metadata": metadata,
                }
            )
    return [
        TranscriptCall(user, session, turns, _compute_fingerprint(user, session, turns))
        for (user, session), turns in turns_by_call.items()
    ]


def import_with_retries(client: MemoAirVoiceClientSync, call: TranscriptCall) -> None:
    """Import a call. Raises `MemoAirVoiceMemoryError` if all tries fail; a retry skips the turns saved before."""
    for tries_left in reversed(range(_MAX_TRIES)):
        try:
            client.import_call(call.session_id, call.turns, user={"id": call.user_id})
        except MemoAirVoiceMemoryError:
            if not tries_left:
                raise
        else:
            return


def import_calls(
    client: MemoAirVoiceClientSync,
    calls: Iterable[TranscriptCall],
    completed: CompletedCalls,
    summary: ImportSummary,
    *,
    threads: int,
) -> None:
    """Import the calls with several threads, and record each in ``completed`` once it is on disk."""
    pending: dict[Future[None], TranscriptCall] = {}
    with ThreadPoolExecutor(threads, "batch") as pool:
        try:
            for call in calls:
                if call.fingerprint in completed:
                    summary.skipped += 1
                    continue
                if len(pending) >= threads * _MAX_PENDING_PER_THREAD:
                    _collect_finished(pending, completed, summary)
                pending[pool.submit(import_with_retries, client, call)] = call
            while pending:
                _collect_finished(pending, completed, summary)
        except BaseException:  # Ctrl-C: calls in progress are completed but not recorded; the next run repeats them
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if missing := [str(path) for path in options.files if not path.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    summary = ImportSummary()
    client = MemoAirVoiceClientSync(
        api_key=os.environ.get("MEMOAIR_API_KEY", "memoair_pk_local"),
        project_id=options.project,
        agent_id=options.agent,
        cloud_base_url=os.environ.get("MEMOAIR_BASE_URL") or None,
        storage_root=options.storage_root,
        runtime_port_range=options.ports,
        max_concurrent_users=2 * options.threads,  # a finished user's runtime is evicted when a later user needs room
        runtime_idle_ttl_s=10,
    )
    with (
        client,
        closing(CompletedCalls(options.done)) as completed,
        _open_rejection_file(options.refused) as rejection_file,
    ):
        calls = _read_all_calls(options.files, TranscriptOptions(user_id=options.user), rejection_file, summary)
        try:
            import_calls(client, calls, completed, summary, threads=options.threads)
        except KeyboardInterrupt:
            print("stopped; run the same command again to continue", file=sys.stderr)
            return 130
    print(json.dumps({name: getattr(summary, name) for name in ("calls", "turns", "skipped", "refused", "failed")}))
    return summary.exit_code


def _read_all_calls(
    files: Iterable[Path], options: TranscriptOptions, rejection_file: TextIO, summary: ImportSummary
) -> Iterator[TranscriptCall]:
    for path in files:
        rejections: list[Rejection] = []
        yield from read_calls(path, options, rejections)
        summary.refused += len(rejections)
        for rejection in rejections:
            print(rejection, file=rejection_file)  # file, line and reason; never the content of the line


@contextmanager
def _open_rejection_file(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stderr
        return
    with path.open("a", encoding="utf-8") as file:
        yield file


def _collect_finished(
    pending: dict[Future[None], TranscriptCall], completed: CompletedCalls, summary: ImportSummary
) -> None:
    finished, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in finished:
        call = pending.pop(future)
        try:
            future.result()
        except MemoAirVoiceMemoryError as error:
            summary.failed[error.code] = summary.failed.get(error.code, 0) + 1
            continue
        except ValueError:  # a reserved id, such as __org__
            summary.failed["call.unfit"] = summary.failed.get("call.unfit", 0) + 1
            continue
        completed.add(call.fingerprint)
        summary.calls += 1
        summary.turns += len(call.turns)


def _compute_fingerprint(user_id: str, session_id: str, turns: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps([user_id, session_id, turns], sort_keys=True).encode()).hexdigest()


def _parse_port_range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Import calls from transcripts, each turn once.")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a transcript: JSON lines, or lines 'Speaker: text'"
    )
    parser.add_argument("--project", required=True)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--user", help="the caller, for files that do not name one")
    parser.add_argument("--done", type=Path, default=Path("batch.done"), help="file that records the imported calls")
    parser.add_argument("--refused", type=Path, help="file for refused lines; default: standard error")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--storage-root", help="folder for memories; default: the platform's folder for user data")
    parser.add_argument(
        "--ports", type=_parse_port_range, default=(7878, 7977), metavar="FIRST-LAST", help="ports for the runtimes"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
