"""``memoair eval``: run a suite of cases, and say what is recalled for them."""

import io
import json
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from memoair_cli.documents.reading import check_encoding
from memoair_cli.evaluation.candidates import (
    ContextCharsOption,
    LaneCharsOption,
    LaneOptions,
    MinConfidenceOption,
    TopKOptions,
    parse_recall_options,
    read_candidate,
)
from memoair_cli.evaluation.local_run import read_documents, run_cases
from memoair_cli.evaluation.report import print_run
from memoair_cli.evaluation.run_file import InvalidRunFileError, RunRecord, default_history_file, read_run, write_run
from memoair_cli.evaluation.server_run import ServerRequest, run_on_server
from memoair_cli.options import (
    AgentId,
    ApiKey,
    BaseUrl,
    OptionalPath,
    ProjectId,
    agent_headers,
    fail,
    pluralize,
    require_key,
)
from memoair_documents.reading import ReadOptions
from memoair_evaluation.candidate import (
    Candidate,
)
from memoair_evaluation.case import InvalidSuiteError, RecallCase, read_suite
from memoair_evaluation.comparison import Comparison, ScoredCase, compare
from memoair_evaluation.forked_run import CaseProcessError
from memoair_evaluation.scoring import CaseResult, aggregate
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.limits import MAX_TIMEOUT_MS
from memoair_protocol.timestamps import utc_now
from memoair_runtime.version import installed_version

LAST = "last"
_MAX_CANDIDATE_BYTES = 1 << 20

Texts = Optional[list[str]]  # noqa: UP045 - Typer needs this on Python 3.10
OptionalInt = Optional[int]  # noqa: UP045
OptionalFloat = Optional[float]  # noqa: UP045
OptionalText = Optional[str]  # noqa: UP045


class EvalExit(IntEnum):
    """Exit codes of the command."""

    FINE = 0
    FAILED = 1  # below --fail-under, or worse than --against
    USAGE = 2
    INTERRUPTED = 130


def evaluate(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE.jsonl", help="The cases, one JSON object per line; with --server also the name of a suite."
        ),
    ],
    documents: Annotated[
        Texts,
        typer.Option(
            metavar="[INDEX=]PATH", help="A folder or file of documents, and the index that it is; can be repeated."
        ),
    ] = None,
    candidate: Annotated[
        OptionalPath, typer.Option(help="A JSON file with recall settings; other options come before it.")
    ] = None,
    lane: LaneOptions = None,
    top_k: TopKOptions = None,
    context_chars: ContextCharsOption = None,
    lane_chars: LaneCharsOption = None,
    min_confidence: MinConfidenceOption = None,
    timeout_ms: Annotated[
        OptionalFloat, typer.Option(min=0.001, max=MAX_TIMEOUT_MS, help="Count lanes that take longer as late.")
    ] = None,
    case: Annotated[Texts, typer.Option(metavar="ID", help="Run only this case; can be repeated.")] = None,
    tag: Annotated[Texts, typer.Option(help="Run only cases with this tag; can be repeated.")] = None,
    fail_under: Annotated[
        OptionalFloat, typer.Option(min=0, max=1, help="Exit with 1 if a smaller share of the cases passes.")
    ] = None,
    against: Annotated[
        OptionalText,
        typer.Option(
            metavar="last|FILE|RUN",
            help="Compare with this run, with --server also by its id; exit with 1 if it is worse.",
        ),
    ] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Keep the run as the last one even if it is worse.")] = False,
    save: Annotated[
        OptionalPath, typer.Option(dir_okay=False, help="Write the run with traces and contexts to this file.")
    ] = None,
    history: Annotated[
        OptionalPath, typer.Option(dir_okay=False, help="The file that keeps the last run, to compare with.")
    ] = None,
    encoding: Annotated[
        OptionalText, typer.Option(help="The encoding of the documents, if it is not recognized.")
    ] = None,
    processes: Annotated[
        OptionalInt, typer.Option(min=1, max=64, help="Run the cases in so many processes; by default one a core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
    server: Annotated[
        bool, typer.Option("--server", help="Run the suite on the server; a file is pushed to it first.")
    ] = False,
    replace_all: Annotated[
        bool, typer.Option("--replace-all", help="On the server, remove the cases that are not in the file.")
    ] = False,
    judge: Annotated[
        bool, typer.Option("--judge", help="Let the server's language model answer the cases and grade the answers.")
    ] = False,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
) -> None:
    """Run a suite of cases, and show what is recalled for them: on this machine, or on a server.

    Exit codes: 0 fine, 1 below --fail-under or worse than --against, 2 invalid options or files, or no result.
    """
    options = parse_recall_options(lane, top_k, context_chars, lane_chars, min_confidence, timeout_ms)
    chosen = read_candidate(candidate, options)
    if chosen.document_set_id is not None and (documents or not server):
        fail(f"{candidate}: documents: a document set is on a server; pass --documents", EvalExit.USAGE)
    read_options = ReadOptions(check_encoding(encoding, EvalExit.USAGE))
    if server:
        _refuse(
            {"--case": case, "--tag": tag, "--history": history, "--processes": processes},
            "runs on this machine",
        )
        headers = agent_headers(project, agent, EvalExit.USAGE)
        is_file = suite.endswith(".jsonl") or Path(suite).is_file()
        before = None if against is None or not Path(against).is_file() else _read_earlier_run(against, Path(against))
        if replace_all and not is_file:
            fail("--replace-all is only for a file: the suite of the server is run as it is", EvalExit.USAGE)
        if chosen.prompt is not None and not judge:
            fail(f"{candidate}: prompt: only the judge uses it: add --judge", EvalExit.USAGE)
        try:
            wanted = ServerRequest(
                base_url,
                require_key(api_key, EvalExit.USAGE),
                headers,
                Path(suite).stem if is_file else suite,
                _read_cases(Path(suite)) if is_file else None,
                replaces_all=replace_all,
                candidate=chosen,
                documents=read_documents(documents, read_options, EvalExit.USAGE) if documents else None,
                with_judge=judge,
                accepts=accept,
                exit_code=EvalExit.USAGE,
            )
            other = against if before is None else None
            cases, run, found_before = run_on_server(wanted, other, with_details=save is not None)
        except KeyboardInterrupt:
            fail("interrupted; the run was canceled", EvalExit.INTERRUPTED)
        before = found_before if before is None else before
    else:
        _refuse({"--replace-all": replace_all, "--judge": judge}, "runs on a server: add --server")
        if chosen.prompt is not None:
            fail(f"{candidate}: prompt: only a run on a server with --judge uses it", EvalExit.USAGE)
        path = Path(suite)
        cases = _select_cases(path, _read_cases(path), case, tag)
        history_file = (history or default_history_file(path, chosen.to_wire())).expanduser()
        before = _read_earlier_run(against, history_file)
        if before is not None and (case or tag):  # then the other cases are not missing
            ids = {each.id for each in cases}
            before = [each for each in before if each.case_id in ids]
        try:
            found = read_documents(documents or [], read_options, EvalExit.USAGE)
            _warn_of_idle_cases(cases, has_documents=bool(found))
            results = run_cases(cases, found, chosen.recall, processes)
        except CaseProcessError as error:
            fail(f"{error}; the run was not kept. With --processes 1 it needs less memory", EvalExit.USAGE)
        except KeyboardInterrupt:
            fail("interrupted; the run was not kept", EvalExit.INTERRUPTED)
        run = _make_record(path, chosen, len(found), results)
    comparison = None if before is None else compare(before, run.cases)
    is_worse = comparison is not None and comparison.is_worse
    try:
        if save is not None:
            _write(save, run, with_details=True)
        if comparison is not None and not comparison.before.cases:
            message = "the runs have no unchanged case in common: there is nothing to compare"
            if against != LAST:
                fail(f"--against: {message}", EvalExit.USAGE)
            typer.echo(message, err=True)  # a suite may be rewritten, and its first run is then kept
        if server or case or tag:
            pass  # the server keeps its runs, and a part of the suite is no run to compare the whole with
        elif accept or not (is_worse or (against != LAST and _is_worse_than_kept(history_file, run))):
            _keep(history_file, run, is_default=history is None)
        else:
            typer.echo("the run was not kept as the last one, because it is worse; --accept keeps it", err=True)
    finally:  # last, because a pipe may be closed, and also if the run cannot be written
        _print(cases, run, comparison, as_json=as_json)
    pass_rate = run.scores.pass_rate or 0.0
    is_below = fail_under is not None and pass_rate < fail_under
    if is_below:
        typer.echo(
            f"{_show_rate(pass_rate, fail_under)} of the cases passed, which is below --fail-under {fail_under:g}",
            err=True,
        )
    raise typer.Exit(EvalExit.FAILED if is_worse or is_below else EvalExit.FINE)


def _read_cases(suite: Path) -> list[RecallCase]:
    try:
        cases = read_suite(suite)
    except InvalidSuiteError as error:
        fail("\n".join(f"{suite}: {line}" for line in str(error).splitlines()), EvalExit.USAGE)
    except OSError as error:
        fail(f"{suite}: {error.strerror or error}", EvalExit.USAGE)
    if not cases:
        fail(f"{suite}: the suite has no cases", EvalExit.USAGE)
    return cases


def _select_cases(
    suite: Path, cases: list[RecallCase], ids: list[str] | None, tags: list[str] | None
) -> list[RecallCase]:
    known = {case.id for case in cases}
    for id_ in ids or ():
        if id_ not in known:
            fail(f"{suite}: no case has the id {id_}", EvalExit.USAGE)
    selected = [
        case for case in cases if (not ids or case.id in ids) and (not tags or any(tag in case.tags for tag in tags))
    ]
    if not selected:
        fail(f"{suite}: no case has the tag {', '.join(tags or ())}", EvalExit.USAGE)
    return selected


def _refuse(options: Mapping[str, object], whose: str) -> None:
    """Exit if an option is given that is not for this kind of run."""
    for name, value in options.items():
        if value:
            fail(f"{name} is only for {whose}", EvalExit.USAGE)


def _read_earlier_run(against: str | None, history: Path) -> list[ScoredCase] | None:
    if against is None:
        return None
    path = history if against == LAST else Path(against)
    try:
        return read_run(path)
    except FileNotFoundError:
        if against != LAST:
            fail(f"--against: {path}: no such file", EvalExit.USAGE)
        typer.echo("there is no earlier run of this suite to compare with", err=True)
        return None
    except InvalidRunFileError as error:
        fail(f"--against: {path}: {error}", EvalExit.USAGE)
    except OSError as error:
        fail(f"--against: {path}: {error.strerror or error}", EvalExit.USAGE)


def _is_worse_than_kept(history: Path, run: RunRecord) -> bool:
    """Return whether a run is worse than the last one that was kept. A file that is no run is replaced."""
    try:
        kept = read_run(history)
    except (InvalidRunFileError, OSError):
        return False
    return compare(kept, run.cases).is_worse


def _warn_of_idle_cases(cases: list[RecallCase], *, has_documents: bool) -> None:
    """Print what makes a suite say less than it seems to."""
    idle = sum(not case.must and not case.must_not for case in cases)
    if idle:
        typer.echo(f"{pluralize(idle, 'case')} of {len(cases):,} expect nothing, and so always pass", err=True)
    if not has_documents and any(item.document is not None for case in cases for item in case.must):
        typer.echo("the suite expects documents, and there are none: pass --documents", err=True)


def _make_record(suite: Path, candidate: Candidate, document_count: int, results: list[CaseResult]) -> RunRecord:
    return RunRecord(
        suite=suite.name,
        created_at=utc_now(),
        engine_version=installed_version(),
        candidate=candidate.to_wire(),
        document_count=document_count,
        scores=aggregate(result.scores for result in results),
        cases=[ScoredCase(result.case_id, result.case_sha256, result.scores) for result in results],
        details={
            result.case_id: {
                "trace": result.trace,
                "context": result.context,
                "halfContext": result.half_context,
            }
            for result in results
        },
    )


def _print(cases: list[RecallCase], run: RunRecord, comparison: Comparison | None, *, as_json: bool) -> None:
    if as_json:
        wire = run.to_wire(with_details=False)
        if comparison is not None:
            wire["comparison"] = comparison.to_wire(with_same=False)
        typer.echo(json.dumps(wire, ensure_ascii=not _has_all_characters()))
        return
    if not _has_all_characters() and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    scores = {case.case_id: case.scores for case in run.cases}
    print_run(Console(file=sys.stdout, highlight=False), run.suite, cases, scores, run.scores, comparison)


def _show_rate(rate: float, limit: float | None) -> str:
    """Return a share with as many digits as it takes to tell it from a limit."""
    digits = next((count for count in range(1, 12) if f"{rate:.{count}%}" != f"{limit or 0.0:.{count}%}"), 12)
    return f"{rate:.{digits}%}"


def _has_all_characters() -> bool:
    """Return whether the output can have the words of any suite. A file or a pipe on Windows has those of cp1252."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _write(path: Path, run: RunRecord, *, with_details: bool) -> None:
    try:
        write_run(path.expanduser(), run, with_details=with_details)
    except OSError as error:
        fail(f"{path}: the run cannot be written: {error.strerror or error}", EvalExit.USAGE)


def _keep(path: Path, run: RunRecord, *, is_default: bool) -> None:
    """Keep the run as the last one, without the words of callers."""
    try:
        if is_default:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_run(path, run, with_details=False)
    except OSError as error:
        message = f"{path}: the run cannot be kept: {error.strerror or error}"
        if not is_default:
            fail(message, EvalExit.USAGE)
        typer.echo(message, err=True)  # such as a read-only home folder of a build machine
