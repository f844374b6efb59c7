"""A server's database and store, for its operator. What it needs comes with the extra ``cloud``."""

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, problem, some

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from memoair_cloud.settings import CloudSettings

_LONG_S = 3_600.0


def check_server(surroundings: DoctorContext) -> Iterator[Finding]:
    """Look at the database that was named, if one was."""
    if surroundings.database_url is None:
        return
    try:
        from pydantic import ValidationError

        import memoair_cloud.serving  # noqa: F401 - all that the extra brings
        from memoair_cloud.database.engine import make_engine
        from memoair_cloud.settings import load_settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("memoair_"):
            raise
        yield problem("server", f"{error.name} is missing", "pip install 'memoair-voice[cloud]'")
        return
    try:
        settings = load_settings(database_url=surroundings.database_url, blob_url=surroundings.blob_url)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            told = f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            yield problem("server", told, "docs/cloud.md lists the settings")
        return
    engine = make_engine(settings.database_url)
    try:
        yield from _database(engine, revives=surroundings.revives)
    finally:
        engine.dispose()
    yield from _blobs(settings)


def _database(engine: "Engine", *, revives: bool) -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from memoair_cloud.database.migrate import is_current

    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite and not Path(engine.url.database or "").is_file():  # to connect would make one
        yield problem("database", "there is none of this name", "memoair cloud init --database-url ...")
        return
    try:
        with engine.connect() as connection:
            current = is_current(connection)
        yield ok("database", f"{'SQLite' if is_sqlite else 'PostgreSQL'} answers")
        if not current:
            remedy = "start `memoair cloud serve` of the newest version that runs here: it migrates"
            yield problem("migrations", "the tables are of another version than this package", remedy)
            return
        yield ok("migrations", "the tables are those of this version")
        if revives:
            yield _revived(engine)
        yield from _work(engine)
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or type(error).__name__).partition("\n")[0]
        yield problem("database", f"it can't be used: {why}", "see that it runs, and that the URL is right")


def _revived(engine: "Engine") -> Finding:
    from memoair_cloud.operations import retry_dead_letters

    return note("work", f"{some(retry_dead_letters(engine), 'piece')} of work that was given up will be tried again")


def _work(engine: "Engine") -> Iterator[Finding]:
    """What has failed for good, and what waits."""
    from memoair_cloud.operations import get_backlog, list_dead_letters

    dead = list_dead_letters(engine)
    for each in dead:
        what = some(each.count, "call") + " not learned from" if each.work == "learn" else "an index file not built"
        since = f" since {each.since:%Y-%m-%d}" if each.since else ""
        remedy = f"mend what fails ({each.failure}), then memoair doctor --revive --database-url ..."
        yield problem("work", f"project {each.project_id}: {what}{since}, given up", remedy)
    if not dead:
        yield ok("work", "nothing was given up")
    waiting = get_backlog(engine)
    told = f"{some(waiting.calls, 'call')} to learn from and {some(waiting.builds, 'index file')} to build"
    oldest_s = 0.0
    if waiting.oldest_call_at is not None:
        oldest_s = (datetime.now(timezone.utc) - waiting.oldest_call_at).total_seconds()
    if oldest_s > _LONG_S:
        yield problem("work", f"{told}; the oldest waits for {oldest_s / 3600:.0f} h", "run `memoair cloud worker`")
    elif waiting.calls or waiting.builds:
        yield note("work", told)


def _blobs(settings: "CloudSettings") -> Iterator[Finding]:
    from memoair_cloud.errors import ServiceUnavailableError
    from memoair_cloud.indexes.blobs import BlobStore

    try:
        BlobStore(settings.blob_url).check_writable()
    except (ServiceUnavailableError, ValueError, ImportError) as error:
        why = type(error.__cause__ or error).__name__
        yield problem("store", f"index files can't be written ({why})", "see that --blob-url is right, and its rights")
    else:
        yield ok("store", "index files can be written")
