"""``memoair runtime``: show which runtime a client would start, and pull a runtime before it is needed."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import attrs
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from memoair_cli.options import fail
from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync
from memoair_voice_sync._processes.runtime_selection import (
    RuntimeKind,
    RuntimeSelection,
    bundled_command,
    find_binary,
    installed_version,
)

if TYPE_CHECKING:
    from memoair_runtime_store.cancel_token import CancelToken
    from memoair_runtime_store.reference import Reference

app = typer.Typer(name="runtime", no_args_is_help=True, help="Show or pull the runtime that clients start.")

# A person at a terminal can wait longer than a caller on the phone.
_START_TIMEOUT_S = 20.0
_ANY_PORT = "http://127.0.0.1:0"
_DIGEST_SOURCES = {
    "reference": "pinned by the reference",
    "registry": "from the registry",
    "server": "from the checksum file on the server",
}

CacheDir = Annotated[
    Optional[Path],  # noqa: UP045 - Typer needs this on Python 3.10
    typer.Option(envvar="MEMOAIR_RUNTIME_CACHE_DIR", help="The folder of pulled runtimes.", file_okay=False),
]


class RuntimeExit(IntEnum):
    """Exit codes of the commands."""

    DONE = 0
    NOT_FOUND = 1  # the runtime does not exist; of `which`, also: it would have to be pulled first
    USAGE = 2
    FAILED = 3
    INTERRUPTED = 130


@app.command()
def pull(
    reference: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A version, REGISTRY/REPOSITORY:VERSION, or the URL of a release file."),
    ] = None,
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Pull a runtime, verify it, and print its digest. Clients with the same reference then start it without network.

    Without REFERENCE, MEMOAIR_RUNTIME_REPO and MEMOAIR_RUNTIME_VERSION name the runtime.

    If it was pulled before, it is pulled again only if the reference now names another one.

    Exit codes: 0 pulled, 1 not found, 2 invalid reference, 3 failed, 130 interrupted.
    """
    from memoair_runtime_store.cancel_token import CancelToken
    from memoair_runtime_store.errors import PullCancelledError
    from memoair_runtime_store.pull import pull as pull_now

    runtime_reference = _parse_reference_argument(reference)
    folder = _select_runtime(cache_dir).cache_folder()
    cancel_token = CancelToken(_pull_timeout_s())
    try:
        with _cancel_on_interrupt(cancel_token), _progress_bar(runtime_reference.display_name) as progress:
            runtime = pull_now(runtime_reference, folder, cancel_token, progress, refresh=True)
    except (KeyboardInterrupt, PullCancelledError):
        fail("interrupted; the partial download was deleted", RuntimeExit.INTERRUPTED)
    except MemoAirVoiceMemoryError as error:
        fail(error.message, RuntimeExit.NOT_FOUND if error.code == "runtime.not_found" else RuntimeExit.FAILED)
    if as_json:
        fields = {**attrs.asdict(runtime), "program": str(runtime.program)}
        typer.echo(json.dumps({_to_camel_case(name): value for name, value in fields.items()}))
        return
    typer.echo(
        f"{runtime.reference}\n"
        f"digest   {runtime.digest}  ({_DIGEST_SOURCES[runtime.digest_from]})\n"
        f"program  {runtime.program}"
    )


@app.command()
def which(
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="Start the runtime briefly to ask for its version.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show which runtime a client would start here, why, and its version. Nothing is pulled.

    Exit codes: 0 the runtime can start, 1 it does not exist or would have to be pulled first.
    """
    info = _describe_runtime(_select_runtime(), ask=ask)
    if as_json:
        typer.echo(json.dumps(info))
    else:
        for name in ("kind", "why", "command", "version", "reference", "digest", "problem"):
            if info[name] is not None:
                value = " ".join(info[name]) if isinstance(info[name], list) else info[name]
                typer.echo(f"{name:<9}  {value}")
    raise typer.Exit(RuntimeExit.NOT_FOUND if info["command"] is None or info["problem"] else RuntimeExit.DONE)


@contextmanager
def _cancel_on_interrupt(cancel_token: "CancelToken") -> Iterator[None]:
    """Cancel the pull on Ctrl-C, even if KeyboardInterrupt gets lost, as in a function that the collector calls."""

    def on_interrupt(*_: object) -> None:
        with suppress(ThreadUnavailableError):  # the exception alone ends most waiting
            start_thread(cancel_token.cancel, name="memoair-cancel")  # takes a lock that this thread may hold
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _select_runtime(cache_dir: Path | None = None) -> RuntimeSelection:
    return RuntimeSelection.of(None, None, None, str(cache_dir) if cache_dir else None, os.environ)


def _parse_reference_argument(reference: str | None) -> "Reference":
    """Return the reference to pull. A bare version is of the repository in the environment, or of the default one."""
    from memoair_runtime_store.reference import parse_reference

    repo, version = os.environ.get("MEMOAIR_RUNTIME_REPO") or None, os.environ.get("MEMOAIR_RUNTIME_VERSION") or None
    names = ("MEMOAIR_RUNTIME_REPO", "MEMOAIR_RUNTIME_VERSION")
    if reference is not None and "/" in reference:
        repo, names = reference, ("REFERENCE", names[1])
        version = version if "{version}" in reference else None
    elif reference is not None:
        version, names = reference, (names[0], "REFERENCE")
    try:
        return parse_reference(repo, version, installed_version(), names)
    except ValueError as error:
        fail(str(error), RuntimeExit.USAGE)


def _describe_runtime(selection: RuntimeSelection, *, ask: bool) -> dict[str, Any]:
    info: dict[str, Any] = dict.fromkeys(("command", "version", "reference", "digest", "problem"))
    info = {"kind": selection.kind.value, "why": selection.why, **info}
    try:
        if selection.kind is RuntimeKind.BUNDLED:
            info |= {"command": bundled_command(), "version": installed_version()}
        elif selection.kind is RuntimeKind.BINARY:
            info["command"] = [find_binary(selection.binary or "")]
        else:
            _add_pulled(info, selection)
        if ask and info["command"] is not None and selection.kind is not RuntimeKind.BUNDLED:
            info["version"] = _query_version(info["command"][0]) or info["version"]
    except MemoAirVoiceMemoryError as error:
        info["problem"] = error.message
    return info


def _add_pulled(info: dict[str, Any], selection: RuntimeSelection) -> None:
    from memoair_runtime_store.cache import find_cached

    reference = selection.reference()
    info |= {"reference": reference.display_name, "version": reference.version}
    runtime = find_cached(reference, selection.cache_folder())
    if runtime is None:
        info["problem"] = "not pulled yet; a client pulls it at its first call, `memoair runtime pull` does so now"
        return
    info |= {"command": [str(runtime.program)], "version": runtime.version, "digest": runtime.digest}


def _query_version(program: str) -> str | None:
    """Return the version that a program reports, from a runtime with a temporary storage root."""
    import urllib3

    with tempfile.TemporaryDirectory(prefix="memoair-which-", ignore_cleanup_errors=True) as folder:
        memory = MemoAirVoiceMemorySync(
            project_id="which",
            user_id="which",
            runtime_url=_ANY_PORT,
            runtime_binary=program,
            storage_root=folder,
            cloud_base_url=None,
        )
        with memory:
            url = memory.runtime_url(timeout_s=_START_TIMEOUT_S)
            try:
                with urllib3.PoolManager(timeout=_START_TIMEOUT_S, retries=False) as http:
                    reply = http.request("GET", f"{url}/v1/runtime/health").json()
            except (urllib3.exceptions.HTTPError, ValueError):
                return None
    version = reply.get("version") if isinstance(reply, dict) else None
    return version if isinstance(version, str) else None


@contextmanager
def _progress_bar(description: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(escape(description), total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


def _pull_timeout_s() -> float:
    from memoair_runtime_store.background import PULL_TIMEOUT_S

    return PULL_TIMEOUT_S


def _to_camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
