"""``memoair outcomes``: report what became of calls, from a table or one by one, and list it."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Optional

import attrs
import typer
from rich.console import Console
from rich.progress import track

from memoair_cli.cloud_client import connect, post
from memoair_cli.listings import AsJson, MaxItems, iterate_items, print_items, time_cell
from memoair_cli.options import (
    AgentId,
    ApiKey,
    BaseUrl,
    ProjectId,
    check_id,
    fail,
    pluralize,
    project_headers,
)
from memoair_documents.decoding import decode_text, is_known_encoding
from memoair_documents.errors import UnreadableFileError
from memoair_documents.outcome_tables import (
    OutcomeColumns,
    OutcomeRow,
    UnknownColumnError,
    guess_columns,
    normalize_outcome,
    read_outcomes,
)
from memoair_documents.tables import CsvTable
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.input_files import open_regular_file
from memoair_protocol.limits import MAX_OUTCOMES
from memoair_protocol.outcomes import is_outcome_name

app = typer.Typer(name="outcomes", no_args_is_help=True, help="Report and list the outcomes of calls.")

_PATH = "/v1/voice-sdk/outcomes"
_STDIN = Path("-")
_MAX_SHOWN = 20
_USAGE = 2
OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10
OptionalNumber = Optional[float]  # noqa: UP045


@attrs.define
class _Summary:
    """What became of a table."""

    accepted: int = 0
    unknown_sessions: int = 0
    rejected: list[dict[str, Any]] = attrs.field(factory=list)


@app.command("import")
def import_outcomes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file; - is standard input.")],
    session_column: Annotated[OptionalText, typer.Option(help="The column with the session ids.")] = None,
    outcome_column: Annotated[OptionalText, typer.Option(help="The column with the outcomes.")] = None,
    score_column: Annotated[OptionalText, typer.Option(help="The column with the scores.")] = None,
    user_column: Annotated[OptionalText, typer.Option(help="The column with the callers' ids.")] = None,
    time_column: Annotated[OptionalText, typer.Option(help="The column with the times of the outcomes.")] = None,
    outcome: Annotated[
        OptionalText, typer.Option(help="The outcome of every row, for files without such a column.")
    ] = None,
    encoding: Annotated[OptionalText, typer.Option(help="The encoding, if it is not recognized.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Save nothing, and print what would be saved.")] = False,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Report the outcomes in a CSV file. Columns that are not named are chosen by their names ("" for none).

    Reporting a file again replaces its outcomes. Exit codes: 0 all saved, 1 some rejected, 2 invalid options.
    """
    table = _open_table(file, encoding)
    given = OutcomeColumns(session_column, outcome_column, score_column, user_column, time_column)
    if outcome is not None:
        given = attrs.evolve(given, fixed_outcome=_check_outcome(outcome))
    columns = guess_columns(table.columns, given)
    try:
        columns.check(table.columns)
    except UnknownColumnError as error:
        fail(f"{file}: {error} (--session-column, --outcome-column, --outcome)", _USAGE)
    if not as_json:
        typer.echo(f"columns: {_describe(columns)}", err=True)
    rows = _read_all(file, table, columns)
    if not rows:
        fail(f"{file}: the table has no rows")
    summary = _Summary(rejected=[{"line": row.line, "reason": row.problem} for row in rows if row.content is None])
    with connect(base_url, api_key) as cloud:
        for batch in _show_progress(list(_split([row for row in rows if row.content is not None]))):
            body = {"outcomes": [row.content for row in batch], "dryRun": dry_run}
            reply = post(cloud, _PATH, body, **_headers(project, agent))
            summary.accepted += reply["accepted"]
            summary.unknown_sessions += reply["unknownSessions"]
            lines = [batch[rejection["index"]].line for rejection in reply["rejected"]]
            reasons = [rejection["reason"] for rejection in reply["rejected"]]
            summary.rejected += [{"line": line, "reason": reason} for line, reason in zip(lines, reasons, strict=True)]
    summary.rejected.sort(key=lambda rejection: int(rejection["line"]))
    _print_summary(file, summary, is_dry_run=dry_run, as_json=as_json)
    raise typer.Exit(1 if summary.rejected else 0)


@app.command("report")
def report_outcome(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The call's session id.")],
    outcome: Annotated[str, typer.Argument(metavar="OUTCOME", help="What became of it, such as resolved.")],
    score: Annotated[OptionalNumber, typer.Option(help="A number.")] = None,
    user: Annotated[OptionalText, typer.Option(help="The caller, if several have a call of this id.")] = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
) -> None:
    """Report the outcome of one call. Reporting it again replaces it."""
    content: dict[str, Any] = {"sessionId": check_id("SESSION", session), "outcome": _check_outcome(outcome)}
    if score is not None:
        content["score"] = score
    if user is not None:
        content["userId"] = check_id("--user", user)
    with connect(base_url, api_key) as cloud:
        reply = post(cloud, _PATH, {"outcomes": [content]}, **_headers(project, agent))
    for rejection in reply["rejected"]:
        fail(rejection["reason"])
    typer.echo("saved; the call has not arrived yet" if reply["unknownSessions"] else "saved")


@app.command("list")
def list_outcomes(
    outcome: Annotated[OptionalText, typer.Option(help="Only outcomes of this name.")] = None,
    session: Annotated[OptionalText, typer.Option(help="Only outcomes of this call.")] = None,
    user: Annotated[OptionalText, typer.Option(help="Only outcomes of this caller's calls.")] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="Only outcomes whose call has not arrived.")] = False,
    since: Annotated[OptionalText, typer.Option(metavar="TIME", help="Only outcomes since this time.")] = None,
    until: Annotated[OptionalText, typer.Option(metavar="TIME", help="Only outcomes before this time.")] = None,
    limit: MaxItems = 50,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List outcomes, the latest first. Times are in UTC."""
    columns = {
        "when": time_cell("occurredAt"),
        "outcome": lambda row: row["outcome"],
        "score": lambda row: "" if row["score"] is None else f"{row['score']:g}",
        "caller": lambda row: row["userId"] or "(not arrived)",
        "call": lambda row: row["sessionId"],
    }
    headers = project_headers(project)
    if user is not None:
        headers["X-User-Id"] = check_id("--user", user)
    filters = {"outcome": outcome, "sessionId": session, "known": "false" if unknown else None}
    with connect(base_url, api_key) as cloud:
        rows = iterate_items(cloud, _PATH, "outcomes", headers, since=since, until=until, **filters)
        print_items(rows, columns, max_items=limit, as_json=as_json, nothing="no outcomes were found")


def _open_table(file: Path, encoding: str | None) -> CsvTable:
    if encoding is not None and not is_known_encoding(encoding):
        fail(f"unknown encoding: {encoding}", _USAGE)
    try:
        if file == _STDIN:
            content = sys.stdin.buffer.read()
        else:
            with open_regular_file(file) as opened:
                content = opened.read()
        text = decode_text(content, encoding)
    except UnreadableFileError as error:
        fail(f"{file}: {error}")
    except OSError as error:
        fail(f"{file}: {error.strerror or error}")
    if not text.strip():
        fail(f"{file}: the file is empty")
    try:
        return CsvTable(text)
    except ValueError as error:
        fail(f"{file}:{error}")


def _read_all(file: Path, table: CsvTable, columns: OutcomeColumns) -> list[OutcomeRow]:
    """Read the whole file before the first row is sent, so that a broken file leaves nothing."""
    try:
        return list(read_outcomes(table, columns))
    except ValueError as error:
        fail(f"{file}:{error}")


def _check_outcome(name: str) -> str:
    outcome = normalize_outcome(name)
    if not is_outcome_name(outcome):
        fail("the outcome: use letters a to z, digits, dots and dashes, at most 64", _USAGE)
    return outcome


def _describe(columns: OutcomeColumns) -> str:
    names = attrs.asdict(columns)
    fixed = names.pop("fixed_outcome")
    parts = [f"{field.replace('_', ' ')} = {name}" for field, name in names.items() if name is not None]
    return ", ".join([*parts, *([f"every outcome is {fixed}"] if fixed else [])])


def _split(rows: Iterable[OutcomeRow]) -> Iterator[list[OutcomeRow]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, MAX_OUTCOMES)):
        yield batch


def _show_progress(batches: Sequence[list[OutcomeRow]]) -> Iterable[list[OutcomeRow]]:
    if not sys.stderr.isatty():
        return batches
    return track(batches, "sending", console=Console(stderr=True), transient=True)


def _headers(project: str, agent: str) -> dict[str, str]:
    headers = project_headers(project)
    return {**headers, "X-Agent-Id": check_id("--agent", agent)} if agent else headers


def _print_summary(file: Path, summary: _Summary, *, is_dry_run: bool, as_json: bool) -> None:
    if as_json:
        content: Mapping[str, Any] = {
            "accepted": summary.accepted,
            "unknownSessions": summary.unknown_sessions,
            "rejected": summary.rejected,
            "dryRun": is_dry_run,
        }
        typer.echo(json.dumps(content, ensure_ascii=False))
        return
    for rejection in summary.rejected[:_MAX_SHOWN]:
        typer.echo(f"{file}:{rejection['line']}: {rejection['reason']}", err=True)
    if len(summary.rejected) > _MAX_SHOWN:
        typer.echo(f"... and {len(summary.rejected) - _MAX_SHOWN:,} more; --json has all", err=True)
    known = summary.accepted - summary.unknown_sessions
    done = "would be saved" if is_dry_run else "saved"
    typer.echo(
        f"{pluralize(summary.accepted, 'outcome')} {done}: {known:,} of known calls,"
        f" {summary.unknown_sessions:,} of calls that have not arrived; {len(summary.rejected):,} rejected"
    )
