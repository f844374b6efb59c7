"""Run a suite on a server: push it if it is a file, send documents, start the run, show how far it is, fetch it."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import attrs
import typer
from rich.console import Console
from rich.progress import Progress

from memoair_cli.cloud_client import body_of, connect, poll, post, request, send
from memoair_cli.evaluation.document_sets import name_indexes
from memoair_cli.evaluation.run_file import RunRecord
from memoair_cli.listings import iterate_items, make_printable
from memoair_cli.options import errors_exit_with, fail, pluralize
from memoair_evaluation.candidate import Candidate
from memoair_evaluation.case import InvalidCaseError, RecallCase, case_to_wire, parse_case
from memoair_evaluation.comparison import ScoredCase
from memoair_evaluation.scoring import CaseScores, aggregate
from memoair_protocol.interrupts import deferred_interrupt
from memoair_protocol.limits import MAX_CASES, MAX_CASES_BYTES
from memoair_protocol.timestamps import parse_timestamp

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

LAST = "last"
_ROOT = "/v1/voice-sdk/evaluations"
# Half of what a request may have, so that the JSON around the items fits, too.
_MAX_PART_BYTES = MAX_CASES_BYTES // 2
_POLL_INTERVAL_S = 0.5
_MAX_FETCHED_CASES = 50
_OPEN = ("queued", "running")


@attrs.frozen
class ServerRequest:
    """What to run on a server.

    Attributes:
        base_url: The URL of the cloud.
        api_key: The key.
        headers: The headers that name project and agent.
        suite: The name of the suite.
        cases: The cases to push; None to run the suite as the server has it.
        replaces_all: Whether to remove the cases of the suite that are not pushed.
        candidate: What differs from the present state.
        documents: Documents to search instead of the project's; None for those.
        with_judge: Whether the server's judge grades the answers.
        accepts: Whether later runs are compared with it even if it is worse.
        exit_code: The exit code of an error.
    """

    base_url: str
    api_key: str = attrs.field(repr=False)
    headers: Mapping[str, str]
    suite: str
    cases: Sequence[RecallCase] | None
    replaces_all: bool
    candidate: Candidate
    documents: Sequence[Mapping[str, Any]] | None
    with_judge: bool
    accepts: bool
    exit_code: int


def run_on_server(
    wanted: ServerRequest, against: str | None, *, with_details: bool
) -> tuple[list[RecallCase], RunRecord, list[ScoredCase] | None]:
    """Run a suite, and wait for it. A document set that was sent for it is deleted at the end.

    Args:
        wanted: What to run.
        against: The run to compare with, by its id; ``last`` for the last one that was not worse; None for none.
        with_details: Whether to fetch the traces and contexts of all cases.

    Returns:
        The cases that failed, the run, and the cases of the other run; None without one.

    Raises:
        KeyboardInterrupt: If the user interrupts. The run is canceled first.
    """
    with errors_exit_with(wanted.exit_code), ExitStack() as stack:
        server = _ServerEvaluations(stack.enter_context(connect(wanted.base_url, wanted.api_key)), wanted)
        if against not in (None, LAST):
            server.check_run(str(against))  # before the run is made that is to be compared with it
        named = None if wanted.documents is None else server.name_indexes(wanted.documents)
        suite_id = server.push_suite()
        if named is not None:
            with deferred_interrupt():
                set_id = server.create_set()
                stack.callback(server.delete, f"document-sets/{set_id}")
            server.send_documents(set_id, named)
            wanted = attrs.evolve(wanted, candidate=attrs.evolve(wanted.candidate, document_set_id=set_id))
        run = server.run(suite_id, wanted.candidate, with_judge=wanted.with_judge)
        other_id = server.find_baseline(run) if against == LAST else against
        before = None if other_id is None else server.list_scored(other_id)
        record = server.fetch(run, with_details=with_details)
        return server.fetch_failed(run["runId"], record), record, before


class _ServerEvaluations:
    """The evaluations of an agent on a server. A request that fails ends the command with a message."""

    def __init__(self, cloud: "CloudHttp", wanted: ServerRequest) -> None:
        self._cloud = cloud
        self._wanted = wanted
        self._headers = dict(wanted.headers)

    def check_run(self, run_id: str) -> None:
        """End the command unless there is such a run of the suite, and it is done."""
        run = self._get(f"runs/{quote(run_id, safe='')}")
        found = self._find_suite()
        if found is None or (run["kind"], run["suiteId"]) != ("suite", found["suiteId"]):
            fail(f"--against: {run_id} is no run of this suite", self._wanted.exit_code)
        if run["state"] != "done":
            fail(
                f"--against: {run_id} is {run['state']}, and only runs that are done can be compared",
                self._wanted.exit_code,
            )

    def push_suite(self) -> str:
        """Return the id of the suite; create it and push the cases, if there are any."""
        name = self._wanted.suite
        found = self._find_suite()
        if self._wanted.cases is None:
            if found is None:
                fail(f"the agent has no suite that is called {make_printable(name)}", self._wanted.exit_code)
            return str(found["suiteId"])
        suite_id = str((found or self._post("suites", {"name": name}))["suiteId"])
        totals = {"added": 0, "replaced": 0, "kept": 0, "removed": 0}
        replaces_all = self._wanted.replaces_all
        for part in _split([case_to_wire(case) for case in self._wanted.cases], MAX_CASES):
            body = {"cases": part, "replaceAll": replaces_all}
            changes = self._send("PUT", f"suites/{suite_id}/cases", body)
            totals = {key: count + changes[key] for key, count in totals.items()}
            replaces_all = False
        self._report_push(suite_id, totals)
        return suite_id

    def name_indexes(self, documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return documents with the names of their indexes."""
        return name_indexes(self._cloud, self._headers, [dict(each) for each in documents])

    def create_set(self) -> str:
        """Create a document set, and return its id."""
        return str(self._post("document-sets", {"name": f"for a run of {self._wanted.suite}"[:200]})["setId"])

    def send_documents(self, set_id: str, documents: Sequence[dict[str, Any]]) -> None:
        """Send the documents of a set."""
        for part in _split(documents, MAX_CASES):
            self._post(f"document-sets/{set_id}/documents", {"documents": part})
        self._post(f"document-sets/{set_id}/complete", {})

    def run(self, suite_id: str, candidate: Candidate, *, with_judge: bool) -> dict[str, Any]:
        """Start a run, wait until it is done, and return it. An interrupt cancels it."""
        body = {
            "suiteId": suite_id,
            "candidate": candidate.to_wire(),
            "judge": with_judge,
            "accept": self._wanted.accepts,
        }
        run: dict[str, Any] = {}
        try:
            with deferred_interrupt():
                run = self._post("runs", body)
            run = self._wait(run)
        except KeyboardInterrupt:
            if run:
                self.delete(f"runs/{run['runId']}?onlyOpen=true")
            raise
        except typer.Exit:
            if run:
                typer.echo(f"the run {run['runId']} was left at the server", err=True)
            raise
        if run["state"] != "done":
            reason = f": {make_printable(run['failure'])}" if run["failure"] else ""
            fail(f"the run {run['runId']} was not finished, it is {run['state']}{reason}", self._wanted.exit_code)
        return run

    def find_baseline(self, run: Mapping[str, Any]) -> str | None:
        """Return the id of the last run with an equal candidate that was not worse. Without one, say so."""
        path = f"{_ROOT}/runs/{run['runId']}/comparison?against={LAST}"
        reply = send(self._cloud, "GET", path, self._headers)
        if reply.status == HTTPStatus.NOT_FOUND:
            typer.echo("there is no earlier run of this suite to compare with", err=True)
            return None
        return str(body_of(self._cloud, reply)["before"]["runId"])

    def list_scored(self, run_id: str) -> list[ScoredCase]:
        """Return the scores of all cases of a run."""
        path = f"{_ROOT}/runs/{quote(run_id, safe='')}/results"
        found = iterate_items(self._cloud, path, "results", self._headers)
        return [ScoredCase(each["caseId"], each["caseSha256"], CaseScores.from_wire(each["scores"])) for each in found]

    def fetch(self, run: Mapping[str, Any], *, with_details: bool) -> RunRecord:
        """Return a run that is done, as a run on this machine is kept."""
        cases = self.list_scored(run["runId"])
        details = {case.case_id: self._result(run["runId"], case.case_id) for case in cases} if with_details else {}
        documents = self._wanted.documents
        return RunRecord(
            suite=self._wanted.suite,
            created_at=parse_timestamp(run["finishedAt"]),
            engine_version=run["engineVersion"],
            candidate=run["candidate"],
            document_count=0 if documents is None else len(documents),
            scores=aggregate(case.scores for case in cases),
            cases=cases,
            details={
                case_id: {name: detail[name] for name in ("trace", "context", "halfContext")}
                for case_id, detail in details.items()
            },
        )

    def fetch_failed(self, run_id: str, record: RunRecord) -> list[RecallCase]:
        """Return the cases that failed, as they were; only the ids of those that are too many to show."""
        failed = [case for case in record.cases if not case.scores.passed]
        found: list[RecallCase] = []
        for case in failed:
            content = self._result(run_id, case.case_id)["case"] if len(found) < _MAX_FETCHED_CASES else None
            with suppress(InvalidCaseError):  # of a later version of the server
                found.append(RecallCase(case.case_id, "?") if content is None else parse_case(content))
        return found

    def delete(self, path: str) -> None:
        """Delete something at the end, also if it fails: then the server removes it later, or another request did."""
        with suppress(Exception):
            self._cloud.request("DELETE", f"{_ROOT}/{path}", None, self._headers)

    def _wait(self, run: dict[str, Any]) -> dict[str, Any]:
        is_shown = sys.stderr.isatty()
        with Progress(console=Console(stderr=True), transient=True, disable=not is_shown) as progress:
            bar = progress.add_task("waiting", total=None)
            while run["state"] in _OPEN:
                progress.update(bar, completed=run["done"], total=run["total"] or None, description=run["state"])
                time.sleep(_POLL_INTERVAL_S)
                run = poll(self._cloud, f"{_ROOT}/runs/{run['runId']}", self._headers)
        return run

    def _report_push(self, suite_id: str, totals: Mapping[str, int]) -> None:
        changed = ", ".join(f"{count:,} {name}" for name, count in totals.items() if count)
        cases = self._wanted.cases or ()
        typer.echo(f"pushed {pluralize(len(cases), 'case')}: {changed}", err=True)
        others = self._get(f"suites/{suite_id}")["caseCount"] - len(cases)
        if others > 0:
            message = "of the suite on the server not in the file: they are run, too; --replace-all removes them"
            typer.echo(f"{pluralize(others, 'case')} {message}", err=True)

    def _find_suite(self) -> dict[str, Any] | None:
        query = urlencode({"name": self._wanted.suite})
        return next(iter(self._get(f"suites?{query}")["suites"]), None)

    def _result(self, run_id: str, case_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(f"runs/{run_id}/results/{quote(case_id, safe='')}")
        return found

    def _get(self, path: str) -> Any:
        return request(self._cloud, "GET", f"{_ROOT}/{path}", self._headers)

    def _post(self, path: str, body: Any) -> Any:
        return post(self._cloud, f"{_ROOT}/{path}", body, **self._headers)

    def _send(self, method: str, path: str, body: Any) -> Any:
        return request(self._cloud, method, f"{_ROOT}/{path}", self._headers, json.dumps(body).encode())


def _split(items: Iterable[dict[str, Any]], max_items: int) -> Iterator[list[dict[str, Any]]]:
    """Yield items in parts that a request may have."""
    part: list[dict[str, Any]] = []
    size = 0
    for item in items:
        length = len(json.dumps(item))
        if part and (len(part) == max_items or size + length > _MAX_PART_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
