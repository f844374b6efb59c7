"""Start with a database that may not respond yet, and say in one sentence why a start is impossible."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from alembic.util.exc import CommandError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from memoair_protocol.backoff import Backoff

_PAUSES = Backoff(0.5, 5.0, jitter=0)
# What PostgreSQL says of connections that it will never accept. A connection that fails has no error code.
_FINAL_REASONS = ("authentication failed", "does not exist", "pg_hba.conf", "permission denied")
_TRANSIENT = (psycopg.OperationalError, psycopg.InterfaceError)
_BUSY = ("locked", "busy")


class StartError(Exception):
    """The server cannot start. The message says why, in one sentence."""


def prepare_database(
    prepare: Callable[[], None], timeout_s: float, report: Callable[[str], None], stopping: threading.Event
) -> None:
    """Call a function that creates the tables, again while the database does not respond yet.

    A database may be started at the same time as its servers, or be recovering from a crash.

    Args:
        prepare: Creates the tables. It may be called several times.
        timeout_s: For how long to try again, in seconds.
        report: Called with the reason after each try that failed.
        stopping: Ends the wait when it is set.

    Raises:
        StartError: If the database cannot be used, or did not respond in time.
    """
    deadline = time.monotonic() + timeout_s
    failures = 0
    while True:
        with explaining_start_errors():
            try:
                prepare()
            except Exception as error:
                reason = _describe(error)
                if not _is_transient(error, reason):
                    raise
            else:
                return
        failures += 1
        pause_s = min(_PAUSES.pause_s(failures), deadline - time.monotonic())
        if pause_s <= 0:
            raise StartError(f"the database did not respond within {timeout_s:g} s: {reason}")
        report(reason)
        if stopping.wait(pause_s):
            raise StartError("the start was canceled while the database did not respond")


@contextmanager
def explaining_start_errors() -> Iterator[None]:
    """Raise `StartError` for errors of the block that an operator can do something about."""
    try:
        yield
    except CommandError:
        raise StartError(
            "the tables are of a newer version than this package: start the newest one that runs here"
        ) from None
    except (SQLAlchemyError, psycopg.Error, sqlite3.Error) as error:
        raise StartError(f"the database cannot be used: {_describe(error)}") from error
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        raise StartError(
            f"a file of the server cannot be used: {error.strerror or type(error).__name__}{place}"
        ) from error
    except (ImportError, ValueError) as error:  # of the blob store: an unknown protocol, a package that is missing
        raise StartError(f"the settings cannot be used: {_first_line(error)}") from error


def _describe(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return _first_line(cause) or type(cause).__name__


def _first_line(error: BaseException) -> str:
    """Return the first line of a message: further ones of a database quote rows."""
    return str(error).strip().partition("\n")[0].strip()


def _is_transient(error: Exception, reason: str) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError):
        return any(word in reason for word in _BUSY)
    return isinstance(cause, _TRANSIENT) and not any(final in reason for final in _FINAL_REASONS)
