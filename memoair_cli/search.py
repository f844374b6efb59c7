"""``memoair search``: what the memory would tell an agent now."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
import urllib3
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memoair_cli.options import CLOUD, ApiKey, BaseUrl, ProjectId, end, needed, storage_root
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, SearchResult

# A free port that the runtime chooses: it must not meet another runtime on this machine.
_ANY_PORT = "http://127.0.0.1:0"
# How long a caller who is known from another machine is waited for.
_FIRST_PULL_S, _HEALTH_S, _LOOK_S = 3.0, 1.0, 0.02
_UNHEARD = {"refused": "the cloud refuses us", "retrying": "the cloud does not answer as it should"}
_HIT_LANES = ("working", "permanent", "org")

File = Optional[Path]  # noqa: UP045 - Typer reads it on Python 3.10, too


class SearchExit(IntEnum):
    """What the command ends with."""

    FOUND = 0
    NOTHING = 1
    USAGE = 2
    FAILED = 3


def search(
    query: Annotated[str, typer.Argument(help="What the caller says.")],
    user: Annotated[str, typer.Option(envvar="MEMOAIR_USER_ID", help="Who calls.")],
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD,
    storage: Annotated[File, typer.Option(help="Where memory lies.", file_okay=False)] = None,
    org_file: Annotated[File, typer.Option(help="The organisation's documents as JSON lines.", dir_okay=False)] = None,
    lane: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Search this lane only (profile, working, permanent, org); may be repeated."),
    ] = None,
    top_k: Annotated[Optional[int], typer.Option(min=1, help="Hits of each lane.")] = None,  # noqa: UP045
    timeout_ms: Annotated[
        float, typer.Option(min=1, help="How long it may take, with the start of a runtime.")
    ] = 10_000,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each score is the sum of.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Ask a caller's memory, and show what an agent would be told. It leaves no trace of a call.

    Ends with 0 if something was found, 1 if nothing was, 2 for options that can't be, 3 if the memory failed.
    """
    project_id = needed(project, "MEMOAIR_PROJECT_ID", SearchExit.USAGE)
    try:
        memory = MemoAirVoiceMemorySync(
            project_id=project_id,
            user_id=user,
            runtime_url=_ANY_PORT,
            api_key=api_key.strip() or None,
            cloud_base_url=base_url if api_key.strip() else None,
            storage_root=str(storage) if storage else None,
            org_file=str(org_file) if org_file else None,
        )
        with memory:
            unheard = _wait_for_cloud(memory, timeout_ms / 1e3) if api_key.strip() else None
            hits = None if top_k is None else dict.fromkeys(lane or _HIT_LANES, top_k)
            found = memory.search_memory(query, lanes=lane, top_k=hits, timeout_ms=timeout_ms, explain=explain)
    except (ValueError, TypeError) as error:
        end(str(error), SearchExit.USAGE)
    except urllib3.exceptions.HTTPError as error:
        end(f"the memory failed: its runtime does not answer ({type(error).__name__})", SearchExit.FAILED)
    except MemoAirVoiceMemoryError as error:
        end(
            f"the memory failed: {error}",
            SearchExit.USAGE if error.code == "runtime.bad_request" else SearchExit.FAILED,
        )
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
    else:
        _show(found)
        if not found.contextText:
            typer.echo(f"nothing was found{_unknown(UserFolder(storage_root(storage), project_id, user))}", err=True)
    if unheard is not None:
        typer.echo(f"{unheard}: only what is on this machine was searched; `memoair doctor` may tell why", err=True)
    raise typer.Exit(_exit_code(found, is_whole=unheard is None))


def _wait_for_cloud(memory: MemoAirVoiceMemorySync, timeout_s: float) -> str | None:
    """Wait a while until the runtime knows what the cloud knows of the caller; tell why where it does not."""
    health = f"{memory.runtime_url(timeout_s)}/v1/runtime/health"
    deadline = time.monotonic() + min(timeout_s, _FIRST_PULL_S)  # the runtime has started by now
    with urllib3.PoolManager(timeout=_HEALTH_S, retries=False) as pool:
        while time.monotonic() < deadline:
            sync = pool.request("GET", health).json().get("sync") or {}
            is_asking = sync.get("state") in ("connecting", "ok") and not sync.get("hasPulled")
            if not is_asking:
                return None if sync.get("hasPulled") else _UNHEARD.get(sync.get("state", ""))
            time.sleep(_LOOK_S)
    return "the cloud has not answered in time"


def _exit_code(found: SearchResult, *, is_whole: bool) -> int:
    if found.contextText:
        return SearchExit.FOUND
    return SearchExit.FAILED if found.trace["degraded"] or not is_whole else SearchExit.NOTHING


def _show(found: SearchResult) -> None:
    console = Console(highlight=False)
    if found.contextText:
        console.print(escape(found.contextText), soft_wrap=True)
        console.print()
    hits = [hit for name in _HIT_LANES for hit in getattr(found, name)]
    if hits:
        console.print(_table(hits, found.trace.get("explain") or {}))
    lanes = found.trace["lanes"]
    times = " · ".join(f"{name} {lane['ms']:.1f} ms" for name, lane in lanes.items() if lane["status"] != "skipped")
    console.print(f"[dim]{times}[/]")
    for complaint in _complaints(found.trace):
        typer.echo(complaint, err=True)


def _unknown(folder: UserFolder) -> str:
    """Why nothing can be found of somebody: most often an id is misspelt, or memory lies elsewhere."""
    if folder.path.exists():
        return ""
    return f": {folder.root} knows no such {'caller' if folder.path.parent.exists() else 'project'}"


def _table(hits: Sequence[dict[str, Any]], explained: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table("lane", "score", "from", "text", box=None, pad_edge=False)
    for hit in hits:
        # A caller's words are data: they must not speak to the terminal.
        text = escape("".join(sign if sign.isprintable() or sign == "\n" else " " for sign in hit["text"]))
        terms = explained.get(hit["lane"], {}).get(hit["id"])
        if terms:
            largest = sorted(terms.items(), key=lambda term: -abs(term[1]))
            text += "\n[dim]" + escape(" + ".join(f"{name} {value:.2f}" for name, value in largest)) + "[/]"
        table.add_row(hit["lane"], f"{hit['score']:.2f}", escape(_source(hit["source"])), text)
    return table


def _source(source: dict[str, Any]) -> str:
    named = [source.get(name) for name in ("sessionId", "turnId", "indexName", "id") if source.get(name)]
    told = " ".join(map(str, named[:2]))
    return f"{str(source['createdAt'])[:10]} {told}" if source.get("createdAt") else told


def _complaints(trace: dict[str, Any]) -> Iterator[str]:
    """What is degraded, and what it means."""
    meanings = {
        "late": "did not answer in time; a larger --timeout-ms may help",
        "loading": "is still being read; ask again in a moment",
        "error": "failed; `memoair doctor` may tell why",
    }
    for name, lane in trace["lanes"].items():
        if lane["status"] in meanings:
            yield f"degraded: {name} {meanings[lane['status']]}"
