"""What the workers must share about calls for an hour: answers already given, and turns already saved.

Telephone platforms send a request again if the answer is late or the connection breaks, and gunicorn may give it to
another worker. All workers of a machine share a SQLite file. It is not the memory: it holds the agent's answers of the
last hour, hashes of what callers said, and no numbers.
"""

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import psutil

log = logging.getLogger("bridge")

R = TypeVar("R")

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    call TEXT, number INTEGER, words TEXT, owner TEXT, claimed_at REAL, spoken_at REAL, answer TEXT,
    PRIMARY KEY (call, number, words)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turns (
    call TEXT, number INTEGER, attempt INTEGER NOT NULL DEFAULT 0, answer TEXT, seen_at REAL,
    PRIMARY KEY (call, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    call TEXT PRIMARY KEY, caller TEXT, is_machine INTEGER NOT NULL DEFAULT 0, seen_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_age ON answers (spoken_at);
CREATE INDEX IF NOT EXISTS turns_age ON turns (seen_at);
CREATE INDEX IF NOT EXISTS calls_age ON calls (seen_at);
"""
_KEEP_S = 3600.0
_PURGE_INTERVAL_S = 60.0
_POLL_INTERVAL_S = 0.02
_BUSY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """The answer to a turn.

    Attributes:
        text: What the agent says.
        at: When the turn was first delivered.
        is_new: Whether this request has made the answer.
    """

    text: str = field(repr=False)
    at: datetime
    is_new: bool


@dataclass(frozen=True)
class KnownCall:
    """What earlier requests have said of a call.

    Attributes:
        caller: The id of the caller, None if it is unknown.
        is_machine: Whether an answering machine took the call.
    """

    caller: str | None = None
    is_machine: bool = False


class CallStore:
    """The shared state of the calls of this machine. Safe to use from any thread and any worker.

    A call is named by its platform and its id. If the file cannot be used, calls go on without it, and the log says so:
    a turn that is sent again may then be answered differently.

    Args:
        folder: Where the file is. It is created on first use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._purge_due_at = 0.0

    def answer_once(
        self, call: str, number: int, user_text: str, generate: Callable[[], str], *, timeout_s: float
    ) -> Answer:
        """Return the answer to a turn, which is generated once, however often it is asked for.

        A concurrent request for the same turn waits for the answer of the first. If that takes too long, or the worker
        of the first has ended, this one generates the answer. The answer that is ready first is the answer of both.

        Args:
            call: The call.
            number: The number of the turn.
            user_text: What the caller said. Other words are another turn.
            generate: Makes the answer.
            timeout_s: How long to wait for another request.
        """
        key = (call, number, hashlib.blake2b(user_text.encode(), digest_size=16).hexdigest())
        started_at = time.time()
        while True:
            claim = self._claim(key, time.time() - started_at >= timeout_s, timeout_s)
            if isinstance(claim, Answer):
                return claim
            if claim:
                break
            time.sleep(_POLL_INTERVAL_S)
        try:
            text = generate()
        except BaseException:
            self._query("DELETE FROM answers WHERE (call, number, words)=(?,?,?) AND answer IS NULL", *key)
            raise
        return self._finish(key, text) or Answer(text, _to_datetime(started_at), is_new=True)

    def list_answers(self, call: str) -> list[tuple[int, Answer]]:
        """Return the numbers and answers of the turns of a call that `answer_once` has answered."""
        rows = self._query("SELECT number, answer, spoken_at FROM answers WHERE call=? AND answer NOT NULL", call)
        return [(number, Answer(text, _to_datetime(at), is_new=False)) for number, text, at in rows]

    def begin_turn(self, call: str, number: int) -> int:
        """Return the number of this attempt to answer a turn. A later attempt replaces an earlier one."""
        rows = self._query(
            "INSERT INTO turns (call, number, attempt, seen_at) VALUES (?, ?, 1, ?)"
            " ON CONFLICT DO UPDATE SET attempt=attempt+1, seen_at=excluded.seen_at RETURNING attempt",
            call, number, time.time(),
        )  # fmt: skip
        return int(rows[0][0]) if rows else 0

    def is_latest(self, call: str, number: int, attempt: int) -> bool:
        """Return whether no later attempt to answer a turn has begun."""
        rows = self._query("SELECT attempt FROM turns WHERE call=? AND number=?", call, number)
        return not rows or int(rows[0][0]) == attempt

    def mark_saved(self, call: str, turns: Sequence[tuple[int, str]]) -> None:
        """Record that turns are saved: their numbers and answers."""
        sql = (
            "INSERT INTO turns (call, number, answer, seen_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET answer=excluded.answer, seen_at=excluded.seen_at"
        )
        rows = [(call, number, answer, time.time()) for number, answer in turns]
        self._transact(lambda db: db.executemany(sql, rows), default=None)

    def list_saved(self, call: str) -> dict[int, str]:
        """Return the answers of the saved turns of a call by their numbers."""
        return dict(self._query("SELECT number, answer FROM turns WHERE call=? AND answer NOT NULL", call))

    def mark_call(self, call: str, *, caller: str | None = None, is_machine: bool = False) -> KnownCall:
        """Record what a request says of a call, and return all that is known of it.

        A caller, once known, stays, and so does an answering machine.
        """
        rows = self._query(
            "INSERT INTO calls (call, caller, is_machine, seen_at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " caller=coalesce(caller, excluded.caller), is_machine=max(is_machine, excluded.is_machine),"
            " seen_at=excluded.seen_at RETURNING caller, is_machine",
            call, caller, int(is_machine), time.time(),
        )  # fmt: skip
        return KnownCall(rows[0][0], bool(rows[0][1])) if rows else KnownCall(caller, is_machine)

    def find_call(self, call: str) -> KnownCall:
        """Return what is known of a call."""
        rows = self._query("SELECT caller, is_machine FROM calls WHERE call=?", call)
        return KnownCall(rows[0][0], bool(rows[0][1])) if rows else KnownCall()

    def _claim(self, key: tuple[str, int, str], is_last_try: bool, lease_s: float) -> Answer | bool:
        """Return the answer, True if this request has to make it, or False if another one is making it."""
        now = time.time()

        def claim(db: sqlite3.Connection) -> Answer | bool:
            found = db.execute(
                "SELECT owner, claimed_at, spoken_at, answer FROM answers WHERE (call, number, words)=(?,?,?)", key
            ).fetchone()
            if found is None:
                db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, NULL)", (*key, _owner(), now, now))
                return True
            owner, claimed_at, spoken_at, text = found
            if text is not None:
                return Answer(text, _to_datetime(spoken_at), is_new=False)
            if not is_last_try and now - claimed_at < lease_s and _is_running(owner):
                return False
            db.execute(
                "UPDATE answers SET owner=?, claimed_at=? WHERE (call, number, words)=(?,?,?)", (_owner(), now, *key)
            )
            return True

        unclaimed: Answer | bool = True
        return self._transact(claim, default=unclaimed)

    def _finish(self, key: tuple[str, int, str], text: str) -> Answer | None:
        """Store an answer, and return the one that was stored first."""

        def finish(db: sqlite3.Connection) -> Answer | None:
            stored = db.execute(
                "UPDATE answers SET answer=? WHERE (call, number, words)=(?,?,?) AND answer IS NULL", (text, *key)
            ).rowcount
            found = db.execute(
                "SELECT answer, spoken_at FROM answers WHERE (call, number, words)=(?,?,?)", key
            ).fetchone()
            return None if found is None else Answer(found[0], _to_datetime(found[1]), is_new=bool(stored))

        return self._transact(finish, default=None)

    def _query(self, sql: str, *values: object) -> list[Any]:
        return self._transact(lambda db: db.execute(sql, values).fetchall(), default=[])

    def _transact(self, work: Callable[[sqlite3.Connection], R], default: R) -> R:
        """Do something in one transaction. A connection is not kept, because none may be used after a fork."""
        try:
            with closing(self._connect()) as db:
                db.execute("BEGIN IMMEDIATE")
                result = work(db)
                if self._is_purge_due():
                    for table, column in (("answers", "spoken_at"), ("turns", "seen_at"), ("calls", "seen_at")):
                        db.execute(f"DELETE FROM {table} WHERE {column} < ?", (time.time() - _KEEP_S,))  # noqa: S608
                db.execute("COMMIT")
                return result
        except (sqlite3.Error, OSError) as error:
            log.warning("a call goes on without the state that workers share: code=%s", type(error).__name__)
            return default

    def _connect(self) -> sqlite3.Connection:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / "calls.sqlite3"
        path.touch(mode=0o600)
        db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            if db.execute("PRAGMA user_version").fetchone() != (_SCHEMA_VERSION,):
                with suppress(sqlite3.OperationalError):  # another worker sets it at this moment
                    db.execute("PRAGMA journal_mode=WAL")
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")
            db.execute("PRAGMA synchronous=OFF")  # of use for an hour; what must survive is in the memory
        except BaseException:
            db.close()
            raise
        return db

    def _is_purge_due(self) -> bool:
        with self._lock:
            if time.monotonic() < self._purge_due_at:
                return False
            self._purge_due_at = time.monotonic() + _PURGE_INTERVAL_S
            return True


def _owner() -> str:
    return f"{os.getpid()} {psutil.Process().create_time()}"


def _is_running(owner: str) -> bool:
    pid, _, created_at = owner.partition(" ")
    try:
        process = psutil.Process(int(pid))
        return str(process.create_time()) == created_at and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _to_datetime(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)
