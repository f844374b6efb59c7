"""Check a server's database and blob store, for its operator. Requires the extra ``cloud``."""

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, pluralize, problem

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from memoair_cloud.settings import CloudSettings

_MAX_WAIT_S = 3_600.0


def check_server(context: DoctorContext) -> Iterator[Finding]:
    """Check the database and the blob store of a server, if a database is given."""
    if context.database_url is None:
        return
    try:
        from pydantic import ValidationError

        import memoair_cloud.serving  # noqa: F401 - imports everything of the extra
        from memoair_cloud.database.engine import make_engine
        from memoair_cloud.settings import load_settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("memoair_"):
            raise
        yield problem("server", f"{error.name} is not installed", "pip install 'memoair-voice[cloud]'")
        return
    try:
        settings = load_settings(database_url=context.database_url, blob_url=context.blob_url)
    except ValidationError as error:
        for details in error.errors(include_input=False, include_url=False):
            message = f"{'.'.join(map(str, details['loc']))}: {details['msg']}"
            yield problem("server", message, "docs/cloud.md lists the settings")
        return
    engine = make_engine(settings.database_url)
    try:
        yield from _check_database(engine, retry_failed=context.retry_failed)
    finally:
        engine.dispose()
    yield from _check_blob_store(settings)


def _check_database(engine: "Engine", *, retry_failed: bool) -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from memoair_cloud.database.migrate import is_current

    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite and not Path(engine.url.database or "").is_file():  # connecting would create it
        yield problem("database", "the database does not exist", "memoair cloud init --database-url ...")
        return
    try:
        with engine.connect() as connection:
            current = is_current(connection)
        yield ok("database", f"{'SQLite' if is_sqlite else 'PostgreSQL'} replies")
        if not current:
            remedy = "start the newest version of `memoair cloud serve` that runs here: it migrates the database"
            yield problem("migrations", "the tables are of another version than this package", remedy)
            return
        yield ok("migrations", "the tables are of this version")
        if retry_failed:
            yield _retry_failed_work(engine)
        yield from _check_work(engine)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or type(error).__name__).partition("\n")[0]
        yield problem("database", f"the database is unavailable: {reason}", "check that it is running, and its URL")


def _retry_failed_work(engine: "Engine") -> Finding:
    from memoair_cloud.operations import retry_dead_letters

    return note("work", f"{pluralize(retry_dead_letters(engine), 'failed job')} will be retried")


def _check_work(engine: "Engine") -> Iterator[Finding]:
    """Check for work that failed permanently, and for work that waits too long."""
    from memoair_cloud.operations import get_backlog, list_dead_letters

    dead = list_dead_letters(engine)
    for letter in dead:
        work = (
            pluralize(letter.count, "call") + " not learned from"
            if letter.work == "learn"
            else "an index file not built"
        )
        since = f" since {letter.since:%Y-%m-%d}" if letter.since else ""
        remedy = f"fix the cause ({letter.failure}), then run: memoair doctor --retry-failed --database-url ..."
        yield problem("work", f"project {letter.project_id}: {work}{since}, failed permanently", remedy)
    if not dead:
        yield ok("work", "no failed jobs")
    waiting = get_backlog(engine)
    message = f"{pluralize(waiting.calls, 'call')} to learn from and {pluralize(waiting.builds, 'index file')} to build"
    oldest_s = 0.0
    if waiting.oldest_call_at is not None:
        oldest_s = (datetime.now(timezone.utc) - waiting.oldest_call_at).total_seconds()
    if oldest_s > _MAX_WAIT_S:
        yield problem(
            "work", f"{message}; the oldest has waited for {oldest_s / 3600:.0f} h", "run `memoair cloud worker`"
        )
    elif waiting.calls or waiting.builds:
        yield note("work", message)


def _check_blob_store(settings: "CloudSettings") -> Iterator[Finding]:
    from memoair_cloud.errors import ServiceUnavailableError
    from memoair_cloud.indexes.blobs import BlobStore

    try:
        BlobStore(settings.blob_url).check_writable()
    except (ServiceUnavailableError, ValueError, ImportError) as error:
        reason = type(error.__cause__ or error).__name__
        yield problem("store", f"index files are not writable ({reason})", "check --blob-url and its permissions")
    else:
        yield ok("store", "index files are writable")
