"""The command: all checks in order, and what they found."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape

from memoair_cli.doctor.cloud import check_cloud
from memoair_cli.doctor.findings import Check, DoctorContext, Finding, FindingStatus, pluralize, problem
from memoair_cli.doctor.installation import check_kernel, check_packages, check_python
from memoair_cli.doctor.runtime import check_start
from memoair_cli.doctor.server import check_server
from memoair_cli.doctor.storage import check_storage
from memoair_cli.doctor.storage_report import check_storage_contents
from memoair_cli.doctor.variables import check_variables
from memoair_cli.options import DEFAULT_CLOUD_URL, AgentId, ApiKey, BaseUrl, ProjectId, fail, resolve_storage_root

# In the order in which one thing needs the other.
_CHECKS: tuple[Check, ...] = (
    check_python,
    check_packages,
    check_kernel,
    check_variables,
    check_start,
    check_storage,
    check_storage_contents,
    check_cloud,
    check_server,
)
_MARKS = {
    FindingStatus.OK: "[green]ok     [/]",
    FindingStatus.NOTE: "[yellow]note   [/]",
    FindingStatus.PROBLEM: "[red]problem[/]",
}
_INDENT = 24

File = Optional[Path]  # noqa: UP045 - Typer reads it on Python 3.10, too
Text = Optional[str]  # noqa: UP045


def doctor(
    storage: Annotated[File, typer.Option(help="Where memory lies.", file_okay=False)] = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = DEFAULT_CLOUD_URL,
    database_url: Annotated[
        Text, typer.Option(envvar="MEMOAIR_CLOUD_DATABASE_URL", help="Look at a server's database and store, too.")
    ] = None,
    blob_url: Annotated[
        Text, typer.Option(envvar="MEMOAIR_CLOUD_BLOB_URL", help="The server's store of index files.")
    ] = None,
    revive: Annotated[
        bool, typer.Option("--revive", help="Let the server try again what it has given up; nothing else is changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what is wrong on this machine, and say how to mend it.

    Starts a runtime over a folder that is thrown away, looks at the storage root and what lies in it, and asks the
    cloud that is set. Nothing is changed. Ends with 1 if anything is wrong, 2 for options that can't be.
    """
    if revive and database_url is None:
        fail("--revive needs a server's database: --database-url or MEMOAIR_CLOUD_DATABASE_URL", code=2)
    context = DoctorContext(
        storage_root=resolve_storage_root(storage),
        base_url=base_url,
        api_key=api_key.strip(),
        project_id=project,
        agent_id=agent,
        database_url=database_url,
        blob_url=blob_url,
        retry_failed=revive,
    )
    console = Console(highlight=False)
    findings = []
    for finding in _run_checks(context):
        findings.append(finding)
        if not as_json:
            _print_finding(console, finding)
    problems = sum(finding.status is FindingStatus.PROBLEM for finding in findings)
    if as_json:
        typer.echo(
            json.dumps({"ok": not problems, "findings": list(map(_finding_to_json, findings))}, ensure_ascii=False)
        )
    else:
        console.print(f"\n{pluralize(problems, 'problem')} found" if problems else "\nnothing is wrong")
    raise typer.Exit(1 if problems else 0)


def _run_checks(context: DoctorContext) -> Iterator[Finding]:
    for check in _CHECKS:
        try:
            yield from check(context)
        except Exception as error:  # noqa: BLE001 - the other checks may say why
            name = check.__name__.removeprefix("check_")
            yield problem(
                name, f"could not be looked at: {type(error).__name__}", "report it; this is a defect of ours"
            )


def _print_finding(console: Console, finding: Finding) -> None:
    console.print(
        f"{_MARKS[finding.status]}  {escape(f'{finding.check:<13}')}  {escape(finding.message)}", soft_wrap=True
    )
    if finding.remedy:
        console.print(f"{'':{_INDENT}}[dim]-> {escape(finding.remedy)}[/]", soft_wrap=True)


def _finding_to_json(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "status": finding.status.value,
        "message": finding.message,
        "remedy": finding.remedy,
    }
