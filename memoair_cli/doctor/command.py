"""``memoair doctor``: run all checks in order and print their findings."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape

from memoair_cli.doctor.checks import (
    Check,
    DoctorContext,
    Finding,
    FindingStatus,
    check_kernel,
    check_packages,
    check_python,
    check_start,
    check_variables,
    problem,
)
from memoair_cli.doctor.cloud import check_cloud, check_server
from memoair_cli.doctor.storage import check_storage, check_storage_contents
from memoair_cli.options import (
    AgentId,
    ApiKey,
    BaseUrl,
    ProjectId,
    StorageRoot,
    fail,
    pluralize,
    resolve_storage_root,
    warn_renamed,
)
from memoair_protocol.defaults import CLOUD_BASE_URL

# In order of dependency.
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

OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10


def doctor(
    storage: StorageRoot = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    database_url: Annotated[
        OptionalText, typer.Option(envvar="MEMOAIR_CLOUD_DATABASE_URL", help="Also check this database of a server.")
    ] = None,
    blob_url: Annotated[
        OptionalText, typer.Option(envvar="MEMOAIR_CLOUD_BLOB_URL", help="The server's storage of index files.")
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Make the server retry its dead letters: work that failed too often."),
    ] = False,
    deprecated_retry: Annotated[bool, typer.Option("--revive", hidden=True)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find problems on this machine, and say how to fix them.

    Starts a runtime in a temporary folder, checks the storage root and its contents, and sends requests to the cloud.

    Changes nothing, unless --retry-failed is passed.

    Exit codes: 0 no problem, 1 problems found, 2 invalid options.
    """
    if deprecated_retry:
        warn_renamed("--revive", "--retry-failed")
        retry_failed = True
    if retry_failed and database_url is None:
        fail("--retry-failed requires a server's database: --database-url or MEMOAIR_CLOUD_DATABASE_URL", code=2)
    context = DoctorContext(
        storage_root=resolve_storage_root(storage),
        base_url=base_url,
        api_key=api_key.strip(),
        project_id=project,
        agent_id=agent,
        database_url=database_url,
        blob_url=blob_url,
        retry_failed=retry_failed,
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
        console.print(f"\n{pluralize(problems, 'problem')} found" if problems else "\nno problems found")
    raise typer.Exit(1 if problems else 0)


def _run_checks(context: DoctorContext) -> Iterator[Finding]:
    for check in _CHECKS:
        try:
            yield from check(context)
        except Exception as error:  # noqa: BLE001 - the other checks may show the cause
            name = check.__name__.removeprefix("check_")
            yield problem(
                name, f"the check failed: {type(error).__name__}", "report this; it is a bug in memoair doctor"
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
