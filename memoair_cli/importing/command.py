"""The command: its options, its signals and its exit codes."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import IO, Annotated, Any, Optional

import typer

from memoair_cli.cloud_http import CloudHttp
from memoair_cli.importing.cloud_target import CloudTarget
from memoair_cli.importing.local_target import LocalTarget
from memoair_cli.importing.progress import ProgressReporter, summary_json, summary_text
from memoair_cli.importing.run import STDIN, Import, ImportOutcome, ImportPlan, display_name
from memoair_cli.importing.state import ImportState, default_state_file
from memoair_cli.importing.targets import ImportTarget
from memoair_cli.options import (
    DEFAULT_CLOUD_URL,
    PLACEHOLDER_KEY,
    AgentId,
    ApiKey,
    BaseUrl,
    ProjectId,
    fail,
    require,
    require_key,
    resolve_storage_root,
)
from memoair_voice_sync import MemoAirVoiceClientSync
from memoair_voice_sync.transcripts import FORMATS, TranscriptOptions, parse_moment


class ImportExit(IntEnum):
    """What the command ends with."""

    ALL_KEPT = 0
    SOME_REJECTED = 1
    USAGE = 2
    TARGET_FAILED = 3
    INTERRUPTED = 130


# An agent is named with every call of the SDK; a local import is of no agent in particular.
_DEFAULT_AGENT = "agent_import"
_MAX_THREADS = 64

Text = Optional[str]  # noqa: UP045 - Typer reads it on Python 3.10, too
Labels = Optional[list[str]]  # noqa: UP045
File = Optional[Path]  # noqa: UP045


def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Transcripts; - is standard input.")],
    user: Annotated[Text, typer.Option(help="Who calls, in files that do not say it.")] = None,
    user_name: Annotated[Text, typer.Option(help="His name.")] = None,
    session: Annotated[Text, typer.Option(help="The call's id, in files that have none.")] = None,
    assistant_name: Annotated[Text, typer.Option(help="How the agent is called.")] = None,
    caller: Annotated[Labels, typer.Option(help="In a text, the label of the caller's lines; or his channel.")] = None,
    assistant: Annotated[
        Labels, typer.Option(help="In a text, the label of the agent's lines; or his channel.")
    ] = None,
    occurred_at: Annotated[
        Text, typer.Option(help="When that was said of which a file does not tell it (when the file was written).")
    ] = None,
    format_: Annotated[
        Text, typer.Option("--format", help=f"{', '.join(FORMATS)}; by default told by the file.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Into this machine's memory, not into a cloud.")] = False,
    storage: Annotated[File, typer.Option(help="With --local: where memory lies.", file_okay=False)] = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = DEFAULT_CLOUD_URL,
    threads: Annotated[int, typer.Option(min=1, max=_MAX_THREADS, help="How many batches are on their way.")] = 4,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to bear with a target that fails.")] = 300.0,
    state: Annotated[
        File, typer.Option(help="Where it is noted how far the files are imported.", dir_okay=False)
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Send everything, whatever the state says.")] = False,
    refused: Annotated[File, typer.Option(help="Write all refusals to this file.", dir_okay=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what is wrong.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Import what was said in earlier calls, with the times of then, each turn once however often it is run.

    Ends with 0 if everything is kept, 1 if some of it was refused, 2 for options that can't be, 3 if the target failed,
    130 if it was stopped; the same command goes on then.
    """
    _check_files(files)
    if format_ is not None and format_ not in FORMATS:
        fail(f"--format can be {', '.join(FORMATS)}", ImportExit.USAGE)
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
        target = _open_local_target(project_id, agent, storage, threads, patience, stop_event)
    else:
        cloud = CloudHttp(base_url, require_key(api_key, ImportExit.USAGE), max_connections=threads)
        target = CloudTarget(cloud, project_id, agent, patience, stop_event)
    with closing(target), _open_output(refused) as rejections_file:
        saved_state = ImportState(state or default_state_file(target.name), restart=anew)
        plan = ImportPlan(files, project_id, options, format_, threads, saved_state)
        with ProgressReporter(files, target.name, rejections_file, quiet=quiet or as_json) as reporter:
            outcome = _run_until_signal(plan, target, reporter, stop_event)
    _print_summary(outcome, reporter, target, quiet=quiet, as_json=as_json)
    raise typer.Exit(_exit_code(outcome))


def _make_options(**values: Any) -> TranscriptOptions:
    try:
        return TranscriptOptions(**values)
    except ValueError as error:
        fail(str(error), ImportExit.USAGE)


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
    """Import, and let Ctrl-C and SIGTERM end that in order; a second one ends it at once."""

    def on_signal(number: int, _: Any) -> None:
        if stop_event.is_set():
            os._exit(128 + number)
        stop_event.set()
        # Not by the means of the others: the signal may have come in the middle of one of them.
        os.write(sys.stderr.fileno(), b"\nending what is on its way; once more ends it at once\n")

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
            fail(f"{display_name(file)} is a folder; name the files in it", ImportExit.USAGE)
        try:
            file.open("rb").close()
        except OSError as error:
            fail(f"{display_name(file)}: {error.strerror}", ImportExit.USAGE)
    if sum(file == STDIN for file in files) > 1:
        fail("standard input can be read once", ImportExit.USAGE)


def _parse_occurred_at(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_moment(text)
    except ValueError:
        return fail("--occurred-at must be an ISO 8601 moment, as 2026-03-02T09:30:00Z is", ImportExit.USAGE)


@contextmanager
def _open_output(path: Path | None) -> Iterator[IO[str] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        fail(f"{path} can't be written: {error.strerror}", ImportExit.USAGE)
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
        typer.echo("the same command goes on from here", err=True)


def _exit_code(outcome: ImportOutcome) -> int:
    if outcome.is_interrupted:
        return ImportExit.INTERRUPTED
    if outcome.failure is not None:
        return ImportExit.TARGET_FAILED
    return ImportExit.SOME_REJECTED if outcome.counts.rejected else ImportExit.ALL_KEPT
