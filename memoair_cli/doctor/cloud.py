"""Check the cloud as this machine sees it: reachable, ready, with the same time, and accepting its identity.

For the operator of a server, check also its database and its blob store, which requires the extra ``cloud``.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from memoair_cli.doctor.checks import DoctorContext, Finding, note, ok, problem
from memoair_cli.options import is_valid_key, pluralize
from memoair_protocol.addresses import is_loopback_url
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.http_headers import encode_header
from memoair_protocol.installing import install_command

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from memoair_cloud.settings import CloudSettings

_READ_TIMEOUT_S = 10.0
# HTTP dates are whole seconds. Facts are dated by day, and sessions end after minutes, so less than this is harmless.
_MAX_CLOCK_SKEW_S = 30.0
_TOO_MANY_REQUESTS, _SERVER_ERROR = 429, 500
_CHECK_ADDRESS_REMEDY = "check the address, and that the server is running (memoair cloud serve)"
_SET_KEY_REMEDY = "set MEMOAIR_API_KEY to a key from `memoair cloud init`"
_MAX_WAIT_S = 3_600.0


def check_cloud(context: DoctorContext) -> Iterator[Finding]:
    """Check the cloud, step by step, until a step fails."""
    if not context.api_key and context.base_url == CLOUD_BASE_URL:
        yield note("cloud", "not configured (MEMOAIR_API_KEY, MEMOAIR_BASE_URL): all memory stays on this machine")
        return
    if not is_valid_key(context.api_key):
        yield problem("key", "MEMOAIR_API_KEY has a character that is invalid in keys", _SET_KEY_REMEDY)
        return
    from memoair_protocol.cloud_http import CloudHttp

    with closing(CloudHttp(context.base_url, context.api_key or None, read_timeout_s=_READ_TIMEOUT_S)) as cloud:
        if _is_unencrypted(context.base_url):
            yield problem("cloud", f"{cloud.address} is plain HTTP: keys and calls are sent unencrypted", "use https")
        try:
            if (yield from _check_server(cloud)):
                yield from _check_identity(cloud, context)
        except CloudUnreachableError as error:
            yield problem("cloud", f"the cloud at {cloud.address} is unreachable: {error}", _CHECK_ADDRESS_REMEDY)


def _check_server(cloud: "CloudHttp") -> Generator[Finding, None, bool]:
    """Check the server itself; return whether it is a cloud."""
    sent_at = time.time()
    reply = cloud.request("GET", "/healthz")
    took_s = time.time() - sent_at
    if not reply.is_ok or (reply.body or {}).get("status") != "ok":
        reason = "the server is not a MemoAir cloud" if reply.is_ok else reply.error_message
        yield problem("cloud", f"{cloud.address}: {reason}", _CHECK_ADDRESS_REMEDY)
        return False
    yield ok("cloud", f"{cloud.address} replies in {took_s * 1e3:.0f} ms")
    ready = cloud.request("GET", "/readyz")
    if ready.is_ok:
        yield ok("cloud", "ready: its database and its blob store are available")
    else:
        remedy = "on the server, run: memoair doctor --database-url ..."
        yield problem("cloud", f"not ready: {ready.error_message}", remedy)
    try:
        server_s = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return True
    # The server's time was rounded down to a second, and was read half a round trip ago.
    skew_s = server_s + 0.5 - (sent_at + took_s / 2)
    message = f"this machine's clock is {abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead'}"
    if abs(skew_s) > _MAX_CLOCK_SKEW_S:
        yield problem(
            "clock", message, "synchronize the clocks of both machines by NTP; the times of turns are wrong by as much"
        )
    else:
        yield ok("clock", "in sync with the cloud")
    return True


def _check_identity(cloud: "CloudHttp", context: DoctorContext) -> Iterator[Finding]:
    if not context.api_key:
        yield problem("key", "MEMOAIR_API_KEY is not set", _SET_KEY_REMEDY)
        return
    reply = cloud.request("GET", "/v1/projects")
    if not reply.is_ok:
        yield _rejection("key", reply, _SET_KEY_REMEDY)
        return
    yield ok("key", "accepted by the cloud")
    if not context.project_id:
        yield note("project", "MEMOAIR_PROJECT_ID is not set", "memoair projects create NAME")
        return
    path = f"/v1/projects/{quote(context.project_id, safe='')}"
    reply = cloud.request("GET", path)
    if not reply.is_ok:
        remedy = "set MEMOAIR_PROJECT_ID to a project of this account; `memoair projects create NAME` creates one"
        yield _rejection("project", reply, remedy, context.project_id)
        return
    yield ok("project", f"{context.project_id} exists")
    if context.agent_id:
        yield _check_agent(cloud.request("GET", f"{path}/agents"), context.agent_id)
    else:
        yield note("agent", "MEMOAIR_AGENT_ID is not set", "memoair agents create --project ...")
    # The request that a runtime starts with: it passes ids in headers, here with a user id that does not exist.
    headers = {"X-Project-Id": encode_header(context.project_id), "X-User-Id": "memoair-doctor"}
    reply = cloud.request("GET", "/v1/voice-sdk/bootstrap", headers=headers)
    if reply.is_ok:
        yield ok("bootstrap", "runtimes can pull from the cloud")
    else:
        yield _rejection("bootstrap", reply, "check whether a proxy on the way removes the header X-Project-Id")


def _check_agent(reply: CloudReply, agent_id: str) -> Finding:
    agents = (reply.body or {}).get("agents")
    if not reply.is_ok or not isinstance(agents, list):
        return _rejection("agent", reply, "ask the operator of the cloud")
    if agent_id in [agent.get("id") for agent in agents if isinstance(agent, dict)]:
        return ok("agent", f"{agent_id} exists")
    remedy = "set MEMOAIR_AGENT_ID to an agent of this project; `memoair agents create` creates one"
    return problem("agent", f"{agent_id} is not an agent of this project", remedy)


def _rejection(check: str, reply: CloudReply, remedy: str, subject: str = "") -> Finding:
    """Return a problem for a request that the cloud rejected. The remedy is used unless the cause is in the cloud."""
    if reply.status == _TOO_MANY_REQUESTS:
        remedy = "wait a while: this key exceeds the cloud's rate limit"
    elif reply.status >= _SERVER_ERROR:
        remedy = "ask the operator of the cloud; its log has the cause"
    return problem(check, f"{subject}{subject and ': '}the cloud rejected the request: {reply.error_message}", remedy)


def _is_unencrypted(base_url: str) -> bool:
    return base_url.lower().startswith("http://") and not is_loopback_url(base_url)


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
        yield problem("server", f"{error.name} is not installed", install_command("cloud"))
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
