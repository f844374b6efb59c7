"""``memoair replay``: ask the questions of past calls again on the server, and see which contexts would change."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, Optional
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.evaluation.candidates import make_candidate
from memoair_cli.evaluation.document_sets import send_document_set
from memoair_cli.listings import AsJson, format_time, iterate_items, print_table
from memoair_cli.options import AgentId, ApiKey, BaseUrl, OptionalPath, ProjectId, fail, pluralize, require
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.timestamps import format_utc, parse_timestamp

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_ROOT = "/v1/voice-sdk/evaluations"
_MAX_SHOWN = 20
_MAX_DOCUMENTS_SHOWN = 10
_MAX_QUESTION_CHARS, _MAX_CHANGE_CHARS = 60, 70
_POLL_INTERVAL_S = 0.5

OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10


def replay(
    since: Annotated[OptionalText, typer.Option("--from", metavar="TIME", help="The beginning of the period.")] = None,
    until: Annotated[
        OptionalText, typer.Option("--to", metavar="TIME", help="Its end, which is not included; by default now.")
    ] = None,
    documents: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--documents", metavar="PATH", help="Search these instead: a folder or a file; may be repeated."),
    ] = None,
    index: Annotated[str, typer.Option(help="The index that the documents are of.")] = "documents",
    candidate: Annotated[
        OptionalPath, typer.Option(metavar="FILE", help="What differs from now, as JSON.", dir_okay=False)
    ] = None,
    top_k: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="[LANE=]N", help="The maximum number of hits of a lane, or of each; may be repeated."),
    ] = None,
    context_chars: Annotated[Optional[int], typer.Option(help="The maximum characters of the context.")] = None,  # noqa: UP045
    lane_chars: Annotated[Optional[int], typer.Option(help="The maximum characters of each lane.")] = None,  # noqa: UP045
    min_confidence: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=1, help="Leave out hits of less confidence."),
    ] = None,
    max_questions: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Ask at most so many questions, chosen evenly."),
    ] = None,
    fail_over: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=1, help="Exit with 1 if a larger share of the contexts changes, such as .2."),
    ] = None,
    run: Annotated[OptionalText, typer.Option(metavar="ID", help="Show this replay, and wait for it.")] = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Ask what callers said in a period again, and see which contexts would change: with other documents or settings.

    The server asks each question of what had been said before it, of the present state and of the candidate. No call is
    touched. Times are in UTC: 2026-03-02, or 2026-03-02T09:30:00+01:00. Exits with 1 above --fail-over, with 2 if an
    option is wrong.
    """
    headers = {
        "X-Project-Id": require(project, "MEMOAIR_PROJECT_ID", 2),
        "X-Agent-Id": require(agent, "MEMOAIR_AGENT_ID", 2),
    }
    with connect(base_url, api_key) as cloud:
        if run is None:
            settings = {
                "topK": top_k,
                "contextChars": context_chars,
                "laneChars": lane_chars,
                "minConfidence": min_confidence,
            }
            wanted = make_candidate(candidate, settings)
            if not documents and not wanted.get("documents") and not wanted.get("recall"):
                fail("nothing would change: pass --documents, --candidate or another setting", 2)
            period = _parse_period(since, until)
            if documents:
                wanted["documents"] = {"setId": send_document_set(cloud, headers, documents, index)}
            body = {"candidate": wanted, **period, **({"maxQuestions": max_questions} if max_questions else {})}
            run = post(cloud, f"{_ROOT}/replays", body, **headers)["runId"]
        path = f"{_ROOT}/runs/{quote(run, safe='')}"
        finished = _wait(cloud, path, headers)
        changes = iterate_items(cloud, f"{path}/changes", "changes", headers)
        largest = list(islice(changes, _MAX_SHOWN))
    if as_json:
        typer.echo(json.dumps({"run": finished, "changes": largest}, ensure_ascii=False))
    else:
        _print_result(finished, largest)
    if fail_over is not None and finished["scores"]["changedShare"] > fail_over:
        raise typer.Exit(1)


def _parse_period(since: str | None, until: str | None) -> dict[str, str]:
    if since is None:
        fail("--from is required: a day such as 2026-03-02, or a time", 2)
    begin = _parse_time("--from", since)
    end = datetime.now(timezone.utc) if until is None else _parse_time("--to", until)
    if not begin < end:
        fail("--from must be before --to", 2)
    return {"from": format_utc(begin), "to": format_utc(end)}


def _parse_time(option: str, text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError:
        fail(f"{option} {text}: write a date (2026-03-02) or a time (2026-03-02T09:30:00+01:00)", 2)


def _wait(cloud: "CloudHttp", path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Wait until a replay is over, with progress on a terminal, and return it; exit if it has failed."""
    run: dict[str, Any] = request(cloud, "GET", path, headers)
    typer.echo(f"replay {run['runId']}", err=True)
    try:
        with _show_progress() as progress:
            task = progress.add_task("choosing questions", total=None)
            while run["open"]:
                if run["total"]:
                    progress.update(task, description="asking", total=run["total"], completed=run["done"])
                time.sleep(_POLL_INTERVAL_S)
                run = request(cloud, "GET", path, headers)
    except KeyboardInterrupt:
        fail(f"the replay goes on at the server: memoair replay --run {run['runId']} shows it", 130)
    if run["state"] != "done":
        fail(f"the replay is {run['state']}{': ' + run['failure'] if run.get('failure') else ''}")
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
        f" {pluralize(scores['changed'], 'context')} of them {'changes' if scores['changed'] == 1 else 'change'}"
        f" ({scores['changedShare']:.1%}); on average {scores['meanChange']:.1%} of the lines"
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
