"""The import command: its options, signals and exit codes."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import IO, Annotated, Any, Optional

import typer

from memoair_cli.importing.cloud_target import CloudTarget
from memoair_cli.importing.local_target import LocalTarget
from memoair_cli.importing.progress import ProgressReporter, summary_json, summary_text
from memoair_cli.importing.redaction import make_redaction
from memoair_cli.importing.run import STDIN, Import, ImportOutcome, ImportPlan, display_name
from memoair_cli.importing.state import ImportState, default_state_file
from memoair_cli.importing.targets import ImportTarget
from memoair_cli.options import (
    PLACEHOLDER_KEY,
    AgentId,
    ApiKey,
    BaseUrl,
    OptionalPath,
    ProjectId,
    fail,
    require,
    require_key,
    resolve_storage_root,
    warn_renamed,
)
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.input_files import check_regular_file
from memoair_transcripts import FORMATS, TranscriptOptions, TranscriptTexts, parse_timestamp
from memoair_voice_sync import MemoAirVoiceClientSync
from memoair_voice_sync.redaction import KINDS


class ImportExit(IntEnum):
    """Exit codes of the command."""

    ALL_KEPT = 0
    SOME_REJECTED = 1
    USAGE = 2
    TARGET_FAILED = 3
    INTERRUPTED = 130


# The SDK requires an agent, but a local import belongs to no particular one.
_DEFAULT_AGENT = "agent_import"
_MAX_THREADS = 64

OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10
Labels = Optional[list[str]]  # noqa: UP045
Seconds = Optional[float]  # noqa: UP045


def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Transcripts; - is standard input.")],
    user: Annotated[OptionalText, typer.Option(help="The caller's id, for files without one.")] = None,
    user_name: Annotated[OptionalText, typer.Option(help="The caller's name, for files without one.")] = None,
    session: Annotated[OptionalText, typer.Option(help="The call's id, for files without one.")] = None,
    assistant_name: Annotated[OptionalText, typer.Option(help="The agent's name, for files without one.")] = None,
    caller: Annotated[Labels, typer.Option(help="The caller's label in a text, or the caller's channel.")] = None,
    assistant: Annotated[Labels, typer.Option(help="The agent's label in a text, or the agent's channel.")] = None,
    occurred_at: Annotated[
        OptionalText, typer.Option(help="The time of turns without one; by default when the file was last modified.")
    ] = None,
    format_: Annotated[
        OptionalText, typer.Option("--format", help=f"{', '.join(FORMATS)}; by default detected from the file.")
    ] = None,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Remove account, card and telephone numbers, dates of birth and security codes before it is sent.",
        ),
    ] = False,
    redact_kind: Annotated[
        Labels, typer.Option(help=f"Remove only these kinds: {', '.join(KINDS)}. May be given several times.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Import into this machine's memory, not into a cloud.")
    ] = False,
    storage: Annotated[OptionalPath, typer.Option(help="With --local: the storage root.", file_okay=False)] = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    threads: Annotated[int, typer.Option(min=1, max=_MAX_THREADS, help="The number of batches sent in parallel.")] = 4,
    retry_timeout: Annotated[float, typer.Option(min=0, help="Seconds to retry when the target fails.")] = 300.0,
    deprecated_timeout: Annotated[Seconds, typer.Option("--patience", min=0, hidden=True)] = None,
    state: Annotated[
        OptionalPath, typer.Option(help="The file that records the progress of imports.", dir_okay=False)
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Ignore recorded progress and send everything.")] = False,
    deprecated_restart: Annotated[bool, typer.Option("--anew", hidden=True)] = False,
    refused: Annotated[
        OptionalPath, typer.Option(help="Write all rejections to this file, as JSON lines.", dir_okay=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only rejections and errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Import transcripts of earlier calls, with their original times. Each turn is saved once, even if run again.

    If the import is interrupted or the target fails, run the same command again to continue.

    Exit codes: 0 all saved, 1 some rejected, 2 invalid options, 3 the target failed, 130 interrupted.
    """
    if deprecated_timeout is not None:
        warn_renamed("--patience", "--retry-timeout")
        retry_timeout = deprecated_timeout
    if deprecated_restart:
        warn_renamed("--anew", "--restart")
        restart = True
    _check_files(files)
    if format_ is not None and format_ not in FORMATS:
        fail(f"--format must be one of {', '.join(FORMATS)}", ImportExit.USAGE)
    redaction = _make_redaction(redact_kind or ()) if redact or redact_kind else None
    options = _make_options(
        user_id=user,
        user_name=user_name,
        assistant_name=assistant_name,
        session_id=session,
        started_at=_parse_occurred_at(occurred_at),
        callers=tuple(caller or ()),
        assistants=tuple(assistant or ()),
    )
    project_id = require(project, "MEMOAIR_PROJECT_ID", ImportExit.USAGE)
    stop_event = threading.Event()
    if local:
        target = _open_local_target(project_id, agent, storage, threads, retry_timeout, stop_event)
    else:
        from memoair_protocol.cloud_http import CloudHttp

        key = require_key(api_key, ImportExit.USAGE)
        cloud = CloudHttp(base_url, key, read_timeout_s=60.0, max_connections=threads)
        target = CloudTarget(cloud, project_id, agent, retry_timeout, stop_event)
    with closing(target), _open_output(refused) as rejections_file:
        saved_state = ImportState(state or default_state_file(target.name), target.name, restart=restart)
        plan = ImportPlan(files, project_id, options, format_, threads, saved_state, redaction)
        with ProgressReporter(files, target.name, rejections_file, quiet=quiet or as_json) as reporter:
            outcome = _run_until_signal(plan, target, reporter, stop_event)
    _print_summary(outcome, reporter, target, quiet=quiet, as_json=as_json)
    raise typer.Exit(_exit_code(outcome))


def _make_options(**values: Any) -> TranscriptOptions:
    try:
        return TranscriptOptions(**values)
    except ValueError as error:
        fail(str(error), ImportExit.USAGE)


def _make_redaction(kinds: Sequence[str]) -> Callable[[TranscriptTexts], TranscriptTexts]:
    try:
        return make_redaction(kinds)
    except ValueError:
        fail(f"--redact-kind must be one of {', '.join(KINDS)}", ImportExit.USAGE)


def _open_local_target(
    project_id: str, agent: str, storage: Path | None, threads: int, retry_timeout_s: float, stop_event: threading.Event
) -> ImportTarget:
    root = resolve_storage_root(storage)
    try:
        client = MemoAirVoiceClientSync(
            api_key=PLACEHOLDER_KEY,
            project_id=project_id,
            agent_id=agent or _DEFAULT_AGENT,
            cloud_base_url=None,
            storage_root=str(root),
            max_concurrent_users=2 * threads,
        )
    except (ValueError, TypeError) as error:
        fail(str(error), ImportExit.USAGE)
    return LocalTarget(client, project_id, root, retry_timeout_s, stop_event)


def _run_until_signal(
    plan: ImportPlan, target: ImportTarget, reporter: ProgressReporter, stop_event: threading.Event
) -> ImportOutcome:
    """Run an import. The first Ctrl-C or SIGTERM ends it after the batches in flight, a second one immediately."""

    def on_signal(number: int, _: Any) -> None:
        if stop_event.is_set():
            os._exit(128 + number)
        stop_event.set()
        # Not through `reporter` or `typer`: the signal may have interrupted one of them.
        os.write(sys.stderr.fileno(), b"\nfinishing the batches in flight; interrupt again to stop immediately\n")

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return Import(plan, target, reporter, stop_event).run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_files(files: Sequence[Path]) -> None:
    for file in files:
        if file == STDIN:
            continue
        if file.is_dir():
            fail(f"{display_name(file)} is a folder; pass the files in it", ImportExit.USAGE)
        try:
            check_regular_file(file)
        except OSError as error:
            fail(f"{display_name(file)}: {error.strerror}", ImportExit.USAGE)
    if sum(file == STDIN for file in files) > 1:
        fail("standard input (-) can be read only once", ImportExit.USAGE)


def _parse_occurred_at(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_timestamp(text)
    except ValueError:
        return fail("--occurred-at must be an ISO 8601 timestamp such as 2026-03-02T09:30:00Z", ImportExit.USAGE)


@contextmanager
def _open_output(path: Path | None) -> Iterator[IO[str] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        fail(f"{path} is not writable: {error.strerror}", ImportExit.USAGE)
    with file:
        yield file


def _print_summary(
    outcome: ImportOutcome, reporter: ProgressReporter, target: ImportTarget, *, quiet: bool, as_json: bool
) -> None:
    if as_json:
        typer.echo(json.dumps(summary_json(outcome, reporter, target.name), ensure_ascii=False))
    elif not quiet or outcome.counts.rejected:
        typer.echo(summary_text(outcome, reporter), err=quiet)
    if outcome.failure is not None:
        typer.echo(outcome.failure, err=True)
    if outcome.failure is not None or outcome.is_interrupted:
        typer.echo("run the same command again to continue", err=True)


def _exit_code(outcome: ImportOutcome) -> int:
    if outcome.is_interrupted:
        return ImportExit.INTERRUPTED
    if outcome.failure is not None:
        return ImportExit.TARGET_FAILED
    return ImportExit.SOME_REJECTED if outcome.counts.rejected else ImportExit.ALL_KEPT
