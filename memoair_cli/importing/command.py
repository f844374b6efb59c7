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
from memoair_cli.importing.run import STDIN, Import, ImportOutcome, ImportPlan, shown
from memoair_cli.importing.state import ImportState, default_state_file
from memoair_cli.importing.targets import ImportTarget
from memoair_cli.options import (
    CLOUD,
    NO_KEY,
    AgentId,
    ApiKey,
    BaseUrl,
    ProjectId,
    end,
    key_of,
    needed,
    storage_root,
)
from memoair_voice_sync import MemoAirVoiceClientSync
from memoair_voice_sync.transcripts import FORMATS, TranscriptOptions, parse_moment


class ImportExit(IntEnum):
    """What the command ends with."""

    ALL_KEPT = 0
    SOME_REFUSED = 1
    USAGE = 2
    TARGET_FAILED = 3
    INTERRUPTED = 130


# An agent is named with every call of the SDK; a local import is of no agent in particular.
_LOCAL_AGENT = "agent_import"
_MOST_THREADS = 64

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
    base_url: BaseUrl = CLOUD,
    threads: Annotated[int, typer.Option(min=1, max=_MOST_THREADS, help="How many batches are on their way.")] = 4,
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
        end(f"--format can be {', '.join(FORMATS)}", ImportExit.USAGE)
    options = _options(
        user_id=user,
        user_name=user_name,
        assistant_name=assistant_name,
        session_id=session,
        started_at=_moment(occurred_at),
        callers=tuple(caller or ()),
        assistants=tuple(assistant or ()),
    )
    project_id = needed(project, "MEMOAIR_PROJECT_ID", ImportExit.USAGE)
    stopping = threading.Event()
    if local:
        target = _local(project_id, agent, storage, threads, patience, stopping)
    else:
        cloud = CloudHttp(base_url, key_of(api_key, ImportExit.USAGE), threads=threads)
        target = CloudTarget(cloud, project_id, agent, patience, stopping)
    with closing(target), _open_for(refused) as lines:
        known = ImportState(state or default_state_file(target.name), forgets=anew)
        plan = ImportPlan(files, project_id, options, format_, threads, known)
        with ProgressReporter(files, target.name, lines, quiet=quiet or as_json) as showing:
            outcome = _run(plan, target, showing, stopping)
    _tell(outcome, showing, target, quiet=quiet, as_json=as_json)
    raise typer.Exit(_exit_code(outcome))


def _options(**told: Any) -> TranscriptOptions:
    try:
        return TranscriptOptions(**told)
    except ValueError as error:
        end(str(error), ImportExit.USAGE)


def _local(
    project_id: str, agent: str, storage: Path | None, threads: int, patience_s: float, stopping: threading.Event
) -> ImportTarget:
    root = storage_root(storage)
    try:
        client = MemoAirVoiceClientSync(
            api_key=NO_KEY,
            project_id=project_id,
            agent_id=agent or _LOCAL_AGENT,
            cloud_base_url=None,
            storage_root=str(root),
            max_concurrent_users=2 * threads,
        )
    except (ValueError, TypeError) as error:
        end(str(error), ImportExit.USAGE)
    return LocalTarget(client, project_id, root, patience_s, stopping)


def _run(plan: ImportPlan, target: ImportTarget, showing: ProgressReporter, stopping: threading.Event) -> ImportOutcome:
    """Import, and let Ctrl-C and SIGTERM end that in order; a second one ends it at once."""

    def stop(number: int, _: Any) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()
        # Not by the means of the others: the signal may have come in the middle of one of them.
        os.write(sys.stderr.fileno(), b"\nending what is on its way; once more ends it at once\n")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return Import(plan, target, showing, stopping).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_files(files: Sequence[Path]) -> None:
    for file in files:
        if file == STDIN:
            continue
        if file.is_dir():
            end(f"{shown(file)} is a folder; name the files in it", ImportExit.USAGE)
        try:
            file.open("rb").close()
        except OSError as error:
            end(f"{shown(file)}: {error.strerror}", ImportExit.USAGE)
    if sum(file == STDIN for file in files) > 1:
        end("standard input can be read once", ImportExit.USAGE)


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_moment(text)
    except ValueError:
        return end("--occurred-at must be an ISO 8601 moment, as 2026-03-02T09:30:00Z is", ImportExit.USAGE)


@contextmanager
def _open_for(path: Path | None) -> Iterator[IO[str] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        end(f"{path} can't be written: {error.strerror}", ImportExit.USAGE)
    with file:
        yield file


def _tell(
    outcome: ImportOutcome, showing: ProgressReporter, target: ImportTarget, *, quiet: bool, as_json: bool
) -> None:
    if as_json:
        typer.echo(json.dumps(summary_json(outcome, showing, target.name), ensure_ascii=False))
    elif not quiet or outcome.counts.refused:
        typer.echo(summary_text(outcome, showing), err=quiet)
    if outcome.failure is not None:
        typer.echo(outcome.failure, err=True)
    if outcome.failure is not None or outcome.is_interrupted:
        typer.echo("the same command goes on from here", err=True)


def _exit_code(outcome: ImportOutcome) -> int:
    if outcome.is_interrupted:
        return ImportExit.INTERRUPTED
    if outcome.failure is not None:
        return ImportExit.TARGET_FAILED
    return ImportExit.SOME_REFUSED if outcome.counts.refused else ImportExit.ALL_KEPT
