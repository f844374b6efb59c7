"""``memoair replay``: ask the questions of past calls again on the server, and see which contexts would change."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import islice
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, Optional
from urllib.parse import quote

import attrs
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from memoair_cli.cloud_client import connect, poll, post, request
from memoair_cli.documents.reading import check_encoding
from memoair_cli.evaluation.candidates import (
    ContextCharsOption,
    LaneCharsOption,
    LaneOptions,
    MinConfidenceOption,
    TopKOptions,
    parse_recall_options,
    read_candidate,
)
from memoair_cli.evaluation.document_sets import delete_document_set, send_document_set
from memoair_cli.evaluation.local_run import read_documents
from memoair_cli.listings import AsJson, format_time, iterate_items, make_printable, print_table
from memoair_cli.options import (
    AgentId,
    ApiKey,
    BaseUrl,
    OptionalPath,
    ProjectId,
    agent_headers,
    errors_exit_with,
    fail,
    pluralize,
)
from memoair_documents.reading import ReadOptions
from memoair_evaluation.candidate import Candidate
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.timestamps import format_utc, parse_timestamp

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_ROOT = "/v1/voice-sdk/evaluations"
_MAX_SHOWN = 20
_MAX_DOCUMENTS_SHOWN = 10
_MAX_QUESTION_CHARS, _MAX_CHANGE_CHARS = 60, 70
_POLL_INTERVAL_S = 0.5
_OPEN = ("queued", "running")
_USAGE = 2

Texts = Optional[list[str]]  # noqa: UP045 - Typer needs this on Python 3.10
OptionalText = Optional[str]  # noqa: UP045
OptionalInt = Optional[int]  # noqa: UP045
OptionalFloat = Optional[float]  # noqa: UP045


def replay(
    since: Annotated[OptionalText, typer.Option("--from", metavar="TIME", help="The beginning of the period.")] = None,
    until: Annotated[
        OptionalText, typer.Option("--to", metavar="TIME", help="Its end, which is not included; by default now.")
    ] = None,
    documents: Annotated[
        Texts,
        typer.Option(metavar="[INDEX=]PATH", help="Search these documents instead of the project's; can be repeated."),
    ] = None,
    candidate: Annotated[
        OptionalPath, typer.Option(help="A JSON file with a candidate; other options come before it.")
    ] = None,
    lane: LaneOptions = None,
    top_k: TopKOptions = None,
    context_chars: ContextCharsOption = None,
    lane_chars: LaneCharsOption = None,
    min_confidence: MinConfidenceOption = None,
    max_questions: Annotated[
        OptionalInt, typer.Option(min=1, help="Ask at most so many questions, chosen evenly; by default 1,000.")
    ] = None,
    fail_over: Annotated[
        OptionalFloat, typer.Option(min=0, max=1, help="Exit with 1 if a larger share of the contexts changes.")
    ] = None,
    run: Annotated[OptionalText, typer.Option(metavar="ID", help="Show this replay instead of a new one.")] = None,
    keep_documents: Annotated[
        bool, typer.Option("--keep-documents", help="Leave --documents on the server, for other runs.")
    ] = False,
    encoding: Annotated[
        OptionalText, typer.Option(help="The encoding of the documents, if it is not recognized.")
    ] = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Ask what callers said in a period again, and see which contexts would change: with other documents or settings.

    The server asks each question of what had been said before it: of the present state, and of the candidate. No call
    is touched. Times are in UTC: 2026-03-02, or 2026-03-02T09:30:00+01:00.

    Exit codes: 0 fine, 1 above --fail-over, 2 invalid options or files, or no result.
    """
    headers = agent_headers(project, agent, _USAGE)
    sent_set: str | None = None
    with errors_exit_with(_USAGE), connect(base_url, api_key) as cloud:
        if run is None:
            options = parse_recall_options(lane, top_k, context_chars, lane_chars, min_confidence, None)
            chosen = read_candidate(candidate, options)
            if not documents and chosen == attrs.evolve(Candidate(), prompt=chosen.prompt):
                fail("nothing would change: pass --documents, --candidate or a setting such as --top-k", _USAGE)
            body: dict[str, Any] = {"candidate": chosen.to_wire(), **_parse_period(since, until)}
            if max_questions is not None:
                body["maxQuestions"] = max_questions
            if documents:
                found = read_documents(documents, ReadOptions(check_encoding(encoding, _USAGE)), _USAGE)
                sent_set = send_document_set(cloud, headers, found)
            run = _start(cloud, headers, body, sent_set)
        path = f"{_ROOT}/runs/{quote(run, safe='')}"
        finished = _wait(cloud, path, headers)
        if sent_set is not None and not keep_documents:
            delete_document_set(cloud, headers, sent_set)
        if finished["state"] != "done":
            reason = f": {make_printable(finished['failure'])}" if finished["failure"] else ""
            fail(f"the replay {finished['runId']} was not finished, it is {finished['state']}{reason}")
        changes = iterate_items(cloud, f"{path}/changes", "changes", headers)
        largest = list(islice(changes, _MAX_SHOWN))
    if as_json:
        typer.echo(json.dumps({"run": finished, "changes": largest}, ensure_ascii=False))
    else:
        _print_result(finished, largest)
    share = finished["scores"]["changedShare"]
    if fail_over is not None and share > fail_over:
        typer.echo(f"{share:.1%} of the contexts change, which is above --fail-over {fail_over:g}", err=True)
        raise typer.Exit(1)


def _start(cloud: "CloudHttp", headers: Mapping[str, str], body: dict[str, Any], sent_set: str | None) -> str:
    """Start a replay, and return its id. If the server rejects it, the documents that were sent for it are deleted."""
    if sent_set is not None:
        body["candidate"]["documents"] = {"setId": sent_set}
    try:
        return str(post(cloud, f"{_ROOT}/replays", body, **headers)["runId"])
    except typer.Exit:
        if sent_set is not None:
            delete_document_set(cloud, headers, sent_set)
        raise


def _parse_period(since: str | None, until: str | None) -> dict[str, str]:
    if since is None:
        fail("--from is required: a day such as 2026-03-02, or a time", _USAGE)
    begin = _parse_time("--from", since)
    end = datetime.now(timezone.utc) if until is None else _parse_time("--to", until)
    if not begin < end:
        fail("--from must be before --to", _USAGE)
    return {"from": format_utc(begin), "to": format_utc(end)}


def _parse_time(option: str, text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError:
        fail(f"{option} {text}: write a date (2026-03-02) or a time (2026-03-02T09:30:00+01:00)", _USAGE)


def _wait(cloud: "CloudHttp", path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Wait until a replay is over, with progress on a terminal, and return it."""
    run: dict[str, Any] = request(cloud, "GET", path, headers)
    typer.echo(f"replay {run['runId']}", err=True)
    try:
        with _show_progress() as progress:
            task = progress.add_task("choosing questions", total=None)
            while run["state"] in _OPEN:
                if run["total"]:
                    progress.update(task, description="asking", total=run["total"], completed=run["done"])
                time.sleep(_POLL_INTERVAL_S)
                run = poll(cloud, path, headers)
    except KeyboardInterrupt:
        fail(f"the replay goes on at the server: memoair replay --run {run['runId']} shows it", 130)
    return run


@contextmanager
def _show_progress() -> Iterator[Progress]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield progress


def _print_result(run: Mapping[str, Any], largest: Sequence[Mapping[str, Any]]) -> None:
    scores = run["scores"]
    typer.echo(
        f"{pluralize(scores['questions'], 'question')} of {pluralize(scores['turns'], 'turn')}:"
        f" {pluralize(scores['changed'], 'context')} {'changes' if scores['changed'] == 1 else 'change'}"
        f" ({scores['changedShare']:.1%}), {scores['meanChange']:.1%} of the lines on average"
    )
    if scores["leftOut"]:
        typer.echo(f"{pluralize(scores['leftOut'], 'question')} could not be asked: the turns are gone, or too many")
    for direction, word in (("appeared", "appear"), ("vanished", "vanish")):
        found = scores["documents"][direction]
        names = [f"{_document_name(item)} ({item['questions']:,})" for item in found[:_MAX_DOCUMENTS_SHOWN]]
        if names:
            more = f" and {len(found) - len(names):,} more" if len(found) > len(names) else ""
            typer.echo(f"documents that {word}: {', '.join(names)}{more}")
    if largest:
        typer.echo()
        print_table(["change", "asked", "caller", "question", "appears (+) and vanishes (-)"], map(_to_row, largest))
        if scores["changed"] > len(largest):
            typer.echo(f"the {len(largest)} largest of {scores['changed']:,} changes")


def _to_row(change: Mapping[str, Any]) -> list[str]:
    items = [f"+{_item_name(item)}" for item in change["appeared"]]
    items += [f"-{_item_name(item)}" for item in change["vanished"]]
    return [
        f"{change['change']:.0%}",
        format_time(change["occurredAt"]),
        change["userId"],
        shorten(change["question"], _MAX_QUESTION_CHARS, placeholder=" …"),
        shorten(", ".join(items) or "other lines", _MAX_CHANGE_CHARS, placeholder=" …"),
    ]


def _item_name(item: Mapping[str, Any]) -> str:
    return _document_name(item) if item["kind"] == "document" else f"{item['kind']} {item.get('turn') or item['id']}"


def _document_name(item: Mapping[str, Any]) -> str:
    return f"{item['index']}/{item['document']}" if item.get("index") else str(item["document"])
