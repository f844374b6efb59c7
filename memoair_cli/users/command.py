"""``memoair users``: list, show, export and forget callers, and place and lift legal holds."""

import json
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.listings import AsJson, format_time, make_printable, print_table
from memoair_cli.options import (
    ApiKey,
    BaseUrl,
    IsConfirmed,
    ProjectId,
    StorageRoot,
    check_id,
    confirm,
    fail,
    project_headers,
    resolve_storage_root,
)
from memoair_cli.users.erasure import erase_here, erase_in_cloud
from memoair_cli.users.local_export import encode_local_export, has_local_data
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.export_file import write_export_file
from memoair_protocol.http_headers import encode_header
from memoair_protocol.identifiers import identifier_problem, stored_identifier_problem
from memoair_protocol.timestamps import format_utc, parse_timestamp
from memoair_runtime.storage.user_folder import UserFolder

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

app = typer.Typer(name="users", no_args_is_help=True, help="Find callers, export and erase their data.")

User = Annotated[str, typer.Argument(metavar="USER_ID", help="The caller's id.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
By = Annotated[Optional[str], typer.Option(help="Who says so, for the record.")]  # noqa: UP045 - Typer, Python 3.10
_MAX_PAGE = 500
_READ_TIMEOUT_S = 600.0  # the cloud reads a whole caller before it answers


class Order(str, Enum):
    """The sort orders of callers."""

    ID = "id"
    LAST_SEEN = "lastSeen"


@app.command("list")
def list_users(
    query: Annotated[str, typer.Argument(help="Words in the name, the id or the metadata.")] = "",
    seen_after: Annotated[Optional[str], typer.Option(help="Heard of since this time (ISO 8601).")] = None,  # noqa: UP045
    seen_before: Annotated[Optional[str], typer.Option(help="Not heard of since this time.")] = None,  # noqa: UP045
    order: Annotated[Order, typer.Option(help="Sort by id, or latest first.")] = Order.ID,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 100,
    cursor: Annotated[str, typer.Option(help="Continue where the last list ended.")] = "",
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List the callers of a project."""
    headers = project_headers(project)
    times = {"seenAfter": _parse_time(seen_after), "seenBefore": _parse_time(seen_before)}
    params = {"q": query, "order": order.value, **{name: value for name, value in times.items() if value}}
    users: list[Any] = []
    next_cursor: str | None = cursor or None
    with connect(base_url, api_key) as cloud:
        while len(users) < limit:
            page_params = {**params, "limit": min(limit - len(users), _MAX_PAGE)}
            page_params |= {"cursor": next_cursor} if next_cursor else {}
            page = request(cloud, "GET", f"/v1/voice-sdk/users?{urlencode(page_params)}", headers)
            users += page["users"]
            next_cursor = page["next"]
            if next_cursor is None:
                break
    if as_json:
        typer.echo(json.dumps({"users": users, "next": next_cursor}))
        return
    rows = [
        (user["userId"], user["name"] or "", user["sessionCount"], format_time(user["lastSeenAt"])) for user in users
    ]
    print_table(("id", "name", "calls", "last seen"), rows)
    if next_cursor:
        typer.echo(f"more: --cursor {next_cursor}", err=True)


@app.command("show")
def show_user(
    user: User,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Show a caller: who they are, how much is kept of them, and their legal holds."""
    headers = project_headers(project)
    with connect(base_url, api_key) as cloud:
        detail = request(cloud, "GET", _path(user), headers)
        holds = request(cloud, "GET", f"{_path(user)}/holds", headers)["holds"]
    if as_json:
        typer.echo(json.dumps({**detail, "holds": holds}))
        return
    lines = {
        "id": detail["userId"],
        "name": detail["name"] or "",
        "metadata": json.dumps(detail["metadata"], ensure_ascii=False),
        "first seen": detail["firstSeenAt"],
        "last seen": detail["lastSeenAt"],
        "legal hold": "yes" if detail["held"] else "no",
        **detail["counts"],
    }
    for title, value in lines.items():
        typer.echo(f"{title:14} {make_printable(str(value))}")
    for hold in holds:
        typer.echo(make_printable(_describe_hold(hold)))


@app.command("export")
def export_user(
    user: User,
    output: Annotated[Path, typer.Option(help="The file to write; only you can read it.", dir_okay=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Export what this machine has, without a cloud.")] = False,
    storage: StorageRoot = None,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
) -> None:
    """Write everything that is kept of a caller to a file, as one JSON document."""
    headers = project_headers(project)
    if not force and output.exists():
        fail(f"{output} exists; pass --force to replace it")
    try:
        if local:
            folder = UserFolder(resolve_storage_root(storage), headers["X-Project-Id"], user)
            folder.check()
            if not has_local_data(folder):
                fail("this machine has nothing of this caller")
            size = write_export_file(output, encode_local_export(folder), overwrite=force)
        else:
            with connect(base_url, api_key) as cloud:
                blocks = _download(cloud, f"{_path(user)}/export", headers)
                size = write_export_file(output, blocks, overwrite=force)
    except FileExistsError:
        fail(f"{output} exists; pass --force to replace it")
    except (OSError, ValueError) as error:
        fail(f"{output} was not written: {error}")
    typer.echo(f"wrote {size:,} bytes to {output}", err=True)


@app.command("forget")
def forget_user(
    user: User,
    is_confirmed: IsConfirmed = False,
    storage: StorageRoot = None,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Erase a caller, in the cloud and on this machine, and print the receipt. Other machines follow by themselves."""
    headers = project_headers(project)
    confirm(f"Erase all data of {make_printable(user)}? This cannot be undone", is_confirmed)
    if problem := stored_identifier_problem(user):
        fail(f"USER_ID {problem}")
    folder = UserFolder(resolve_storage_root(storage), headers["X-Project-Id"], user)
    receipt, error = None, None
    if not identifier_problem(user):  # else the cloud has never accepted anything of this caller
        with connect(base_url, api_key) as cloud:
            receipt, error = erase_in_cloud(cloud, _path(user), headers)
    here = erase_here(folder, base_url, None if receipt is None else parse_timestamp(receipt["forgottenAt"]))
    _print_erasure(user, receipt, here, as_json=as_json)
    if error is not None:
        fail(f"{error}\nthe caller was erased on this machine only; run the command again")


def _print_erasure(user: str, receipt: dict[str, Any] | None, here: dict[str, Any], *, as_json: bool) -> None:
    others = None
    if receipt is not None:
        others = f"erase their copies at version {receipt['version']} of the list of erasures, or when next online"
    if as_json:
        typer.echo(json.dumps({"receipt": receipt, "thisMachine": here, "otherMachines": others}))
        return
    if receipt is not None:
        typer.echo(f"erased {make_printable(user)} at {receipt['erasedAt']}")
        for kind, count in receipt["removed"].items():
            typer.echo(f"  {kind:14} {count:,}")
    typer.echo(f"this machine    {here['status']}{': ' + here['reason'] if 'reason' in here else ''}")
    if receipt is not None:
        typer.echo(f"other machines  {others}")
        typer.echo(f"receipt         {receipt['digest']}")


@app.command("hold")
def hold_user(
    user: User,
    reason: Reason,
    by: By = None,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Place a legal hold on a caller: nothing of theirs is dropped or erased until it is lifted."""
    _change_hold(f"{_path(user)}/holds", reason, by, project, api_key, base_url, as_json=as_json)


@app.command("lift")
def lift_hold(
    user: User,
    reason: Reason,
    by: By = None,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Lift the legal hold on a caller."""
    _change_hold(f"{_path(user)}/holds/lift", reason, by, project, api_key, base_url, as_json=as_json)


def _change_hold(
    path: str, reason: str, by: str | None, project: str, api_key: str, base_url: str, *, as_json: bool
) -> None:
    headers = project_headers(project)
    with connect(base_url, api_key) as cloud:
        hold = post(cloud, path, {"reason": reason, **({"by": by} if by else {})}, **headers)
    typer.echo(json.dumps(hold) if as_json else make_printable(_describe_hold(hold)))


def _describe_hold(hold: dict[str, Any]) -> str:
    placed = f"hold {hold['holdId']}: placed {hold['placedAt']} by {hold['placedBy']}: {hold['reason']}"
    if hold["liftedAt"] is None:
        return placed
    return f"{placed}; lifted {hold['liftedAt']} by {hold['liftedBy']}: {hold['liftReason']}"


def _download(cloud: "CloudHttp", path: str, headers: dict[str, str]) -> Iterator[bytes]:
    from memoair_protocol.cloud_http import read_body, read_chunks

    encoded = {name: encode_header(value) for name, value in headers.items()}
    try:
        with cloud.open("GET", path, headers=encoded, timeouts=(5.0, _READ_TIMEOUT_S)) as response:
            if response.status_code >= 300:
                reply = CloudReply(response.status_code, response.headers, read_body(response, lambda: None))
                fail(f"the cloud at {cloud.address} rejected the request: {reply.error_message}")
            total = int(response.headers.get("Content-Length") or 0)
            columns = BarColumn(), DownloadColumn(), TransferSpeedColumn()
            console = Console(stderr=True)
            with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
                task = progress.add_task("", total=total)
                for chunk in read_chunks(response, lambda: None):
                    progress.advance(task, len(chunk))
                    yield chunk
    except CloudUnreachableError as error:
        fail(f"the cloud at {cloud.address} is unreachable: {error}")


def _path(user: str) -> str:
    quoted = quote(check_id("USER_ID", user), safe="")
    return f"/v1/voice-sdk/users/{quoted if quoted.strip('.') else quoted.replace('.', '%2E')}"


def _parse_time(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return format_utc(parse_timestamp(text))
    except ValueError:
        fail(f"{text!r} is not a time: use ISO 8601, such as 2026-03-02 or 2026-03-02T09:30:00Z")
