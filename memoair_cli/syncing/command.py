"""``memoair sync``: its options, its progress bar, and what it prints."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from memoair_cli.options import (
    ApiKey,
    BaseUrl,
    ProjectId,
    StorageRoot,
    fail,
    pluralize,
    require,
    require_key,
    resolve_storage_root,
)
from memoair_protocol.addresses import parse_base_url
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_runtime.storage.project_folder import ProjectFolder

if TYPE_CHECKING:
    from memoair_cli.syncing.run import SyncOutcome, SyncTarget


class SyncExit(IntEnum):
    """Exit codes of the command."""

    DONE = 0
    LEFT = 1
    USAGE = 2
    REFUSED = 3


def sync(
    project: ProjectId = "",
    api_key: ApiKey = "",
    agent: Annotated[
        str, typer.Option("--agent", envvar="MEMOAIR_AGENT_ID", help="The agent of turns whose agent is unknown.")
    ] = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    storage: StorageRoot = None,
    include_local: Annotated[
        bool, typer.Option("--include-local", help="Also send what was said without a cloud (cloud_base_url=None).")
    ] = False,
    moved_from: Annotated[
        Optional[str],  # noqa: UP045 - Typer needs this on Python 3.10
        typer.Option("--moved-from", help="The cloud's former URL: also send what was said for it there."),
    ] = None,
    retry_timeout: Annotated[float, typer.Option(min=0, help="How long to go on without progress, in seconds.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Send what waits on this machine to the cloud: the unsent turns of all callers of a project.

    Clients do so in the background; this command does it now and says what is left. Turns of erased callers are not
    sent. What is sent twice counts once.

    Exit codes: 0 nothing is left, 1 turns are left, 2 invalid options, 3 nothing is left, but the cloud has permanently
    refused some turns.
    """
    from memoair_cli.syncing.run import SyncRun, SyncTarget  # the HTTP client of the cloud is slow to import

    target = SyncTarget(
        ProjectFolder(resolve_storage_root(storage), require(project, "MEMOAIR_PROJECT_ID", SyncExit.USAGE)),
        _parse_url(base_url, "MEMOAIR_BASE_URL"),
        require_key(api_key, SyncExit.USAGE),
        agent or None,
        include_local,
        _parse_url(moved_from, "--moved-from") if moved_from else None,
    )
    with _show_progress(is_shown=sys.stderr.isatty() and not (quiet or as_json)) as report:
        outcome = SyncRun(target, retry_timeout, report).run()
    typer.echo(json.dumps(_to_json(outcome, target)) if as_json else _to_text(outcome, target))
    if outcome.left.events or outcome.error:
        raise typer.Exit(SyncExit.LEFT)
    if outcome.left.refused:
        raise typer.Exit(SyncExit.REFUSED)


def _parse_url(url: str, name: str) -> str:
    parsed = parse_base_url(url.strip())
    return parsed if parsed is not None else fail(f"{name} is not an http(s):// address", SyncExit.USAGE)


@contextmanager
def _show_progress(*, is_shown: bool) -> Iterator[Callable[[int, int], None]]:
    if not is_shown:
        yield lambda sent, left: None  # noqa: ARG005
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as progress:
        task = progress.add_task("sending", total=None, counts="")
        yield lambda sent, left: progress.update(
            task, completed=sent, total=sent + left, counts=f"{sent:,} sent, {left:,} left"
        )


def _to_json(outcome: "SyncOutcome", target: "SyncTarget") -> dict[str, Any]:
    oldest_at = outcome.left.oldest_at
    return {
        "project": target.project.project_id,
        "cloud": target.base_url,
        "sent": {"turns": outcome.sent_turns, "users": outcome.sent_users},
        "left": {
            "turns": outcome.left.turns,
            "events": outcome.left.events,
            "users": outcome.left.users,
            "oldestS": None if oldest_at is None else round(max(0.0, time.time() - oldest_at), 1),
        },
        "refused": outcome.left.refused,
        "local": {"turns": outcome.local.turns, "users": outcome.local.users},
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
    }


def _to_text(outcome: "SyncOutcome", target: "SyncTarget") -> str:
    left, local = outcome.left, outcome.local
    sent = f"{pluralize(outcome.sent_turns, 'turn')} of {pluralize(outcome.sent_users, 'caller')} sent"
    lines = [f"{sent} to {target.base_url} ({outcome.seconds:.1f} s)"]
    if left.events:
        what = f"{pluralize(left.turns, 'turn')} of {pluralize(left.users, 'caller')}"
        what = what if left.turns else pluralize(left.events, "start or end of a call")
        lines.append(f"{what} left{f': {outcome.error}' if outcome.error else ''}")
    elif outcome.error:
        lines.append(f"the cloud cannot be used: {outcome.error}; nothing waits for it on this machine")
    else:
        lines.append("nothing is left")
    if left.refused:
        lines.append(
            f"the cloud has permanently refused {pluralize(left.refused, 'event')}; refused.jsonl in the callers' "
            "folders says why. Fix the cause, and delete the file"
        )
    if local.events:
        lines.append(
            f"{pluralize(local.turns, 'turn')} of {pluralize(local.users, 'caller')} said without a cloud stay on this "
            "machine; --include-local sends them"
        )
    return "\n".join(lines)
