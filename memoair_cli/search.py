"""``memoair search``: show what an agent would recall about a caller now."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import IntEnum
from typing import Annotated, Any, Optional

import typer
import urllib3
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memoair_cli.options import ApiKey, BaseUrl, OrgFile, ProjectId, StorageRoot, fail, require, resolve_storage_root
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, SearchResult

# A free port, chosen by the runtime, so that it cannot reach another runtime on this machine.
_ANY_PORT = "http://127.0.0.1:0"
# How long to wait for the memory of a caller who is known from another machine.
_PULL_TIMEOUT_S, _HEALTH_TIMEOUT_S, _POLL_INTERVAL_S = 3.0, 1.0, 0.02
_SYNC_FAILURES = {"refused": "the cloud rejects the requests", "retrying": "the cloud is unreachable or fails"}
_HIT_LANES = ("working", "permanent", "org")


class SearchExit(IntEnum):
    """Exit codes of the command."""

    FOUND = 0
    NOT_FOUND = 1
    USAGE = 2
    FAILED = 3


def search(
    query: Annotated[str, typer.Argument(help="What the caller says.")],
    user: Annotated[str, typer.Option(envvar="MEMOAIR_USER_ID", help="The caller's id.")],
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    storage: StorageRoot = None,
    org_file: OrgFile = None,
    lane: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer needs this on Python 3.10
        typer.Option(help="Search only this lane (profile, working, permanent, org); can be repeated."),
    ] = None,
    top_k: Annotated[Optional[int], typer.Option(min=1, help="Hits per lane.")] = None,  # noqa: UP045
    timeout_ms: Annotated[
        float, typer.Option(min=1, help="Timeout in milliseconds, including the start of a runtime.")
    ] = 10_000,
    explain: Annotated[bool, typer.Option("--explain", help="Show the terms of each score.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Search a caller's memory, and show what an agent would recall. The search leaves no trace in the memory.

    Exit codes: 0 found, 1 nothing found, 2 invalid options, 3 the search failed.
    """
    project_id = require(project, "MEMOAIR_PROJECT_ID", SearchExit.USAGE)
    try:
        memory = MemoAirVoiceMemorySync(
            project_id=project_id,
            user_id=user,
            runtime_url=_ANY_PORT,
            api_key=api_key.strip() or None,
            cloud_base_url=base_url if api_key.strip() else None,
            storage_root=str(storage) if storage else None,
            org_file=str(org_file) if org_file else None,
            recall_traces="off",  # an operator's question is not part of a call
        )
        with memory:
            sync_failure = _wait_for_cloud(memory, timeout_ms / 1e3) if api_key.strip() else None
            hits_per_lane = None if top_k is None else dict.fromkeys(lane or _HIT_LANES, top_k)
            result = memory.search_memory(
                query, lanes=lane, top_k=hits_per_lane, timeout_ms=timeout_ms, explain=explain
            )
    except (ValueError, TypeError) as error:
        fail(str(error), SearchExit.USAGE)
    except urllib3.exceptions.HTTPError as error:
        fail(f"the search failed: the runtime does not reply ({type(error).__name__})", SearchExit.FAILED)
    except MemoAirVoiceMemoryError as error:
        fail(
            f"the search failed: {error}",
            SearchExit.USAGE if error.code == "runtime.bad_request" else SearchExit.FAILED,
        )
    if as_json:
        typer.echo(json.dumps(asdict(result), ensure_ascii=False))
    else:
        _print_result(result)
        if not result.contextText:
            typer.echo(
                f"nothing was found{_unknown_id_hint(UserFolder(resolve_storage_root(storage), project_id, user))}",
                err=True,
            )
    if sync_failure is not None:
        typer.echo(
            f"{sync_failure}: only this machine's memory was searched; run `memoair doctor` to find out why", err=True
        )
    raise typer.Exit(_exit_code(result, is_complete=sync_failure is None))


def _wait_for_cloud(memory: MemoAirVoiceMemorySync, timeout_s: float) -> str | None:
    """Wait until the runtime has pulled the caller's memory from the cloud. If it has not, return the reason."""
    health = f"{memory.runtime_url(timeout_s)}/v1/runtime/health"
    deadline = time.monotonic() + min(timeout_s, _PULL_TIMEOUT_S)  # the runtime has started by now
    with urllib3.PoolManager(timeout=_HEALTH_TIMEOUT_S, retries=False) as pool:
        while time.monotonic() < deadline:
            sync = pool.request("GET", health).json().get("sync") or {}
            is_pending = sync.get("state") in ("connecting", "ok") and not sync.get("hasPulled")
            if not is_pending:
                return None if sync.get("hasPulled") else _SYNC_FAILURES.get(sync.get("state", ""))
            time.sleep(_POLL_INTERVAL_S)
    return "the cloud did not reply in time"


def _exit_code(result: SearchResult, *, is_complete: bool) -> int:
    if result.contextText:
        return SearchExit.FOUND
    return SearchExit.FAILED if result.trace["degraded"] or not is_complete else SearchExit.NOT_FOUND


def _print_result(result: SearchResult) -> None:
    console = Console(highlight=False)
    if result.contextText:
        console.print(escape(result.contextText), soft_wrap=True)
        console.print()
    hits = [hit for name in _HIT_LANES for hit in getattr(result, name)]
    if hits:
        console.print(_hit_table(hits, result.trace.get("explain") or {}))
    lanes = result.trace["lanes"]
    times = " · ".join(f"{name} {lane['ms']:.1f} ms" for name, lane in lanes.items() if lane["status"] != "skipped")
    console.print(f"[dim]{times}[/]")
    for warning in _degradation_warnings(result.trace):
        typer.echo(warning, err=True)


def _unknown_id_hint(folder: UserFolder) -> str:
    """Return a hint if the storage root has no such user: most often an id is misspelled, or the root is wrong."""
    if folder.path.exists():
        return ""
    return f": {folder.root} has no such {'caller' if folder.path.parent.exists() else 'project'}"


def _hit_table(hits: Sequence[dict[str, Any]], explanations: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table("lane", "score", "from", "text", box=None, pad_edge=False)
    for hit in hits:
        # A caller's words are data: they must not control the terminal.
        text = escape("".join(char if char.isprintable() or char == "\n" else " " for char in hit["text"]))
        terms = explanations.get(hit["lane"], {}).get(hit["id"])
        if terms:
            largest = sorted(terms.items(), key=lambda term: -abs(term[1]))
            text += "\n[dim]" + escape(" + ".join(f"{name} {value:.2f}" for name, value in largest)) + "[/]"
        table.add_row(hit["lane"], f"{hit['score']:.2f}", escape(_source_label(hit["source"])), text)
    return table


def _source_label(source: dict[str, Any]) -> str:
    parts = [source.get(name) for name in ("sessionId", "turnId", "indexName", "id") if source.get(name)]
    label = " ".join(map(str, parts[:2]))
    return f"{str(source['createdAt'])[:10]} {label}" if source.get("createdAt") else label


def _degradation_warnings(trace: dict[str, Any]) -> Iterator[str]:
    """Yield a warning for each degraded lane, with what to do."""
    meanings = {
        "late": "did not reply in time; a larger --timeout-ms may help",
        "loading": "is still loading; try again in a moment",
        "error": "failed; run `memoair doctor` to find out why",
    }
    for name, lane in trace["lanes"].items():
        if lane["status"] in meanings:
            yield f"degraded: {name} {meanings[lane['status']]}"
