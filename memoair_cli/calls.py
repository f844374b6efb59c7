"""``memoair calls``: list the calls of a project, and show what was said in one."""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Optional
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape

from memoair_cli.cloud_client import connect, request
from memoair_cli.listings import AsJson, MaxItems, format_time, iterate_items, make_printable, print_items
from memoair_cli.options import ApiKey, BaseUrl, ProjectId, check_id, fail, pluralize, require
from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.interruption import FULL_TEXT_KEY, truncate_to_heard
from memoair_protocol.timestamps import parse_timestamp

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

app = typer.Typer(name="calls", no_args_is_help=True, help="See the calls of a project.")

_SESSIONS_PATH = "/v1/voice-sdk/sessions"
OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10


@app.command("list")
def list_calls(
    user: Annotated[OptionalText, typer.Option(help="Only calls of this caller.")] = None,
    agent: Annotated[OptionalText, typer.Option(help="Only calls of this agent.")] = None,
    since: Annotated[
        OptionalText, typer.Option(metavar="TIME", help="Only calls that began at this time or later.")
    ] = None,
    until: Annotated[OptionalText, typer.Option(metavar="TIME", help="Only calls that began before this time.")] = None,
    limit: MaxItems = 50,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List calls, the latest first. Times are in UTC: 2026-03-02, or 2026-03-02T09:30:00+01:00."""
    columns = {
        "began": lambda call: format_time(call["startedAt"]),
        "minutes": _minutes,
        "turns": lambda call: call["turnCount"],
        "caller": lambda call: call["userId"],
        "agent": lambda call: call["agentId"] or "",
        "call": lambda call: call["sessionId"],
    }
    period = {"since": _parse_time("--since", since), "until": _parse_time("--until", until)}
    with connect(base_url, api_key) as cloud:
        calls = iterate_items(cloud, _SESSIONS_PATH, "sessions", _headers(project, user), agentId=agent, **period)
        print_items(calls, columns, max_items=limit, as_json=as_json, nothing="no calls were found")


@app.command("show")
def show_call(
    call: Annotated[str, typer.Argument(metavar="CALL", help="The call's session id.")],
    user: Annotated[OptionalText, typer.Option(help="The caller, if several have a call of this id.")] = None,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Show a call: who called, and each turn with its time. Of an interrupted answer, what was heard."""
    headers, path = _headers(project, user), f"{_SESSIONS_PATH}/{quote(call, safe='')}"
    with connect(base_url, api_key) as cloud:
        session = request(cloud, "GET", path, headers)
        events = _latest_versions(cloud, path, headers)
    if as_json:
        typer.echo(json.dumps({**session, "events": events}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    ended = f"ended {format_time(session['endedAt'])}" if session["endedAt"] else "not ended"
    agent = f" · agent {session['agentId']}" if session["agentId"] else ""
    _print(console, f"{session['userId']}{agent} · began {format_time(session['startedAt'])} UTC · {ended}")
    turns = [event for event in events if event["type"] == "turn"]
    for event in turns:
        _print_turn(console, event)
    typer.echo(pluralize(len(turns), "turn"))


def _print_turn(console: Console, event: dict[str, Any]) -> None:
    payload = truncate_to_heard(event["payload"])
    is_cut = FULL_TEXT_KEY in payload
    console.print()
    _print(console, f"{event['occurredAt'][11:19]}  {payload.get('turnId') or ''}", style="dim")
    if payload["userText"]:
        _print(console, f"caller  {payload['userText']}")
    if payload["assistantText"] or is_cut:
        _print(console, f"agent   {payload['assistantText']}{' [interrupted]' if is_cut else ''}")
    for tool in payload.get("toolCalls") or ():
        name = tool.get("name") if isinstance(tool, dict) else None
        _print(console, f"tool    {name or 'unnamed'}", style="dim")


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(escape(make_printable(text)), style=style, soft_wrap=True)


def _latest_versions(cloud: "CloudHttp", path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Return the events of a call, of a corrected turn the latest version only."""
    events = list(iterate_items(cloud, f"{path}/events", "events", headers))
    corrected = {corrected_event_id(event["payload"]) for event in events}
    return [event for event in events if event["eventId"] not in corrected]


def _minutes(call: dict[str, Any]) -> str:
    if not call["endedAt"]:
        return "…"
    seconds = (parse_timestamp(call["endedAt"]) - parse_timestamp(call["startedAt"])).total_seconds()
    return f"{max(0.0, seconds) / 60:.1f}"


def _headers(project: str, user: str | None) -> dict[str, str]:
    headers = {"X-Project-Id": require(project, "MEMOAIR_PROJECT_ID")}
    return headers if user is None else {**headers, "X-User-Id": check_id("--user", user)}


def _parse_time(option: str, text: str | None) -> str | None:
    try:
        moment: datetime | None = None if text is None else parse_timestamp(text)
    except ValueError:
        fail(f"{option} {text}: write a date (2026-03-02) or a time (2026-03-02T09:30:00+01:00)", 2)
    return None if moment is None else moment.isoformat()
