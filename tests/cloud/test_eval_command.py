"""``memoair eval --server``: the same table and exit codes as on this machine, and nothing is left on the server."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clouds import Client, RunningCloud, running
from support.commands import CommandResult, memoair, start_process
from support.evaluations import ROOT, case_of, new_suite
from support.waiting import eventually

from memoair_cli import cloud_client
from memoair_cloud.queue import Worker
from memoair_protocol.backoff import Backoff
from memoair_protocol.cloud_http import CloudHttp
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError

Evaluate = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    """Run a server with a worker. What differs between databases is tested below it."""
    folder = tmp_path_factory.mktemp("served")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder / "cloud") as server:
        worker = Worker(server.services.queue)
        worker.start()
        yield server
        worker.stop(60)


@pytest.fixture
def agent(served: RunningCloud) -> Client:
    """A client of a new agent, whose project has a document."""
    client = served.tenant()
    document = {"id": "returns", "text": "Boots can be returned within thirty days."}
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    return client


@pytest.fixture
def environ(agent: Client) -> dict[str, str]:
    """The environment of a command of the agent."""
    return environ_of(agent)


def environ_of(agent: Client) -> dict[str, str]:
    identity = {f"MEMOAIR_{name.upper()}_ID": value for name, value in agent.identity.items()}
    return {"MEMOAIR_BASE_URL": agent.url, "MEMOAIR_API_KEY": str(agent.key), **identity}


@pytest.fixture
def evaluate(environ: dict[str, str]) -> Evaluate:
    """A function that runs a suite on the server."""
    return lambda *arguments, **more: memoair("eval", *arguments, "--server", **more, **environ)


def write_suite(folder: Path, *cases: dict[str, Any]) -> Path:
    path = folder / "returns.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    return path


def left(client: Client) -> list[Any]:
    """Return what a command must not leave: document sets, and runs that are not over."""
    open_runs = [run for run in client.ok("GET", f"{ROOT}/runs")["runs"] if run["state"] in ("queued", "running")]
    return [*client.ok("GET", f"{ROOT}/document-sets")["documentSets"], *open_runs]


def test_a_file_is_pushed_and_run_and_then_compared(evaluate: Evaluate, agent: Client, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, case_of("a"), case_of("b", must=[{"text": "thirty days"}]))
    saved = tmp_path / "run.json"
    first = evaluate(suite, "--fail-under", "1", "--against", "last", "--save", saved)
    assert first.out.startswith("returns: 2 cases, 2 passed (100.0%)\n")
    assert "pushed 2 cases: 2 added" in first.err
    assert "there is no earlier run of this suite" in first.err
    run = json.loads(saved.read_text())
    assert "thirty days" in run["cases"][0]["context"]

    write_suite(tmp_path, case_of("a"), case_of("new"))
    again = evaluate(suite)
    assert "pushed 2 cases: 1 added, 1 kept" in again.err
    assert "1 case of the suite on the server not in the file: they are run, too; --replace-all" in again.err
    assert "1 removed" in evaluate(suite, "--replace-all").err

    agent.ok("DELETE", "/v1/voice-sdk/index/faq")
    worse = evaluate("returns", "--against", "last", "--fail-under", ".9", code=1)
    assert "compared with the earlier run: worse (2 worse)" in worse.out
    assert "missing   document returns" in worse.out
    assert "0.0% of the cases passed, which is below --fail-under 0.9" in worse.err
    against_file = evaluate("returns", "--against", saved, "--json", code=1)
    assert json.loads(against_file.out)["comparison"]["counts"]["worse"] == 1
    [earlier] = [each for each in agent.ok("GET", f"{ROOT}/runs?limit=4")["runs"] if each["scores"]["passed"] == 3]
    assert "worse" in evaluate("returns", "--against", earlier["runId"], code=1).out
    assert left(agent) == []


def test_the_last_run_is_the_last_one_that_was_not_worse_with_equal_settings(
    evaluate: Evaluate, agent: Client, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path, case_of("a"))
    evaluate(suite)
    without_documents = (suite, "--against", "last", "--lane", "permanent")
    assert "there is no earlier run" in evaluate(*without_documents).err, "an experiment is compared with its like"
    assert "not worse (1 same)" in evaluate(*without_documents).out
    assert "not worse (1 same)" in evaluate(suite, "--against", "last").out, "and it is no measure of other runs"
    other = tmp_path / "policy.md"
    other.write_text("Boots.")
    sent = (suite, "--against", "last", "--documents", f"faq={other}")
    assert "there is no earlier run" in evaluate(*sent).err
    assert "not worse (1 same)" in evaluate(*sent).out, "the set is another one each time"

    agent.ok("DELETE", "/v1/voice-sdk/index/faq")
    for _ in range(2):
        assert "worse (1 worse)" in evaluate(suite, "--against", "last", code=1).out, "it stays worse when repeated"
    evaluate(suite, "--against", "last", "--accept", code=1)
    assert "not worse (1 same)" in evaluate(suite, "--against", "last").out


def test_only_a_run_of_the_suite_that_is_done_is_compared_with(
    evaluate: Evaluate, agent: Client, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path, case_of("a"))
    evaluate(suite)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(case_of("a")) + "\n")
    evaluate(other)
    [foreign, own] = agent.ok("GET", f"{ROOT}/runs")["runs"]
    period = {"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}
    replay = agent.ok("POST", f"{ROOT}/replays", {"candidate": {"recall": {"topK": {"org": 1}}}, **period})
    for run in (foreign, replay):
        assert "is no run of this suite" in evaluate(suite, "--against", run["runId"], code=2).err
    assert "not worse" in evaluate(suite, "--against", own["runId"]).out


def test_a_run_that_was_canceled_is_not_compared_with(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, case_of("a"))
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path / "cloud") as server:  # without a worker
        agent = server.tenant()
        path = new_suite(agent, case_of("a"))
        run_id = agent.ok("POST", f"{ROOT}/runs", {"suiteId": path.rpartition("/")[2]})["runId"]
        agent.ok("DELETE", f"{ROOT}/runs/{run_id}")
        refused = memoair("eval", suite, "--server", "--against", run_id, code=2, **environ_of(agent))
        assert f"{run_id} is canceled" in refused.err


def test_a_candidate_has_documents_from_a_folder_and_other_settings(
    evaluate: Evaluate, agent: Client, tmp_path: Path
) -> None:
    (tmp_path / "help").mkdir()
    (tmp_path / "help" / "policy.md").write_text("# Returns\n\nBoots can be returned within ninety days.\n")
    suite = write_suite(tmp_path, case_of("a", must=[{"document": "policy.md", "index": "faq"}, {"text": "ninety"}]))
    evaluate(suite, "--fail-under", "1", code=1)
    evaluate(suite, "--fail-under", "1", "--documents", f"faq={tmp_path / 'help'}")
    evaluate(suite, "--fail-under", "1", "--documents", tmp_path / "help")  # the only index need not be named
    evaluate(suite, "--fail-under", "1", "--documents", tmp_path / "help", "--lane", "permanent", code=1)
    agent.ok("POST", "/v1/voice-sdk/index/create", {"name": "shop", "documents": []})
    refused = evaluate(suite, "--documents", tmp_path / "help", code=2).err
    assert "name the index of the documents: INDEX=PATH, one of faq, shop" in refused
    assert "pushed" not in refused
    assert left(agent) == []


def test_what_cannot_be_run_is_said_with_exit_code_2(
    evaluate: Evaluate, environ: dict[str, str], agent: Client, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path, case_of("a"))
    assert "the agent has no suite that is called nothing" in evaluate("nothing", code=2).err
    assert "--case is only for runs on this machine" in evaluate(suite, "--case", "a", code=2).err
    assert "--judge is only for runs on a server" in memoair("eval", suite, "--judge", code=2).err
    assert "the server has no judge" in evaluate(suite, "--judge", code=2).err
    assert "MEMOAIR_AGENT_ID is not set" in evaluate(suite, "--agent", "", code=2).err
    refused = evaluate(suite, "--against", "run_x", code=2).err
    assert "unknown run of this agent" in refused
    assert "pushed" not in refused
    offline = {**environ, "MEMOAIR_BASE_URL": "http://127.0.0.1:9"}
    assert "unreachable" in memoair("eval", suite, "--server", code=2, **offline).err
    (tmp_path / "candidate.json").write_text('{"prompt": {"version": 9}}')
    assert "only the judge uses it" in evaluate(suite, "--candidate", tmp_path / "candidate.json", code=2).err
    assert "--replace-all is only for a file" in evaluate("nothing", "--replace-all", code=2).err
    assert left(agent) == []


def test_ctrl_c_cancels_the_run(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, case_of("a"))
    (tmp_path / "policy.md").write_text("Boots.")
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path / "cloud") as server:  # without a worker
        agent = server.tenant()
        arguments = ("eval", suite, "--server", "--documents", f"faq={tmp_path / 'policy.md'}")
        with start_process(*arguments, home=tmp_path, **environ_of(agent)) as process:
            eventually(lambda: left(agent)[1:], 60)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert (process.returncode, left(agent)) == (130, [])
    assert "interrupted; the run was canceled" in err


def test_a_poll_that_fails_ends_no_run(
    evaluate: Evaluate, agent: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(tmp_path, case_of("a"))
    monkeypatch.setattr(cloud_client, "_POLL_BACKOFF", Backoff(0.01, 0.01))
    genuine, failures = CloudHttp.request, [CloudUnreachableError("it is gone"), CloudReply(503, {}, b"busy")]

    def fail_at_first(cloud: CloudHttp, method: str, path: str, *more: Any) -> CloudReply:
        is_poll = method == "GET" and path.startswith(f"{ROOT}/runs/run_") and "/" not in path[len(ROOT) + 6 :]
        if is_poll and failures:
            failure = failures.pop()
            if isinstance(failure, CloudReply):
                return failure
            raise failure
        return genuine(cloud, method, path, *more)

    monkeypatch.setattr(CloudHttp, "request", fail_at_first)
    assert "1 passed" in evaluate(suite).out
    assert not failures

    failures.extend(CloudReply(503, {}, b"busy") for _ in range(50))
    assert "was left at the server" in evaluate(suite, code=2).err
    failures.clear()
    assert [run["state"] for run in agent.ok("GET", f"{ROOT}/runs")["runs"]][1:] == ["done"]
    assert agent.ok("GET", f"{ROOT}/runs")["runs"][0]["state"] != "canceled"


def test_an_interrupt_does_not_delete_a_run_that_is_over(evaluate: Evaluate, agent: Client, tmp_path: Path) -> None:
    evaluate(write_suite(tmp_path, case_of("a")))
    [run] = agent.ok("GET", f"{ROOT}/runs")["runs"]
    path = f"{ROOT}/runs/{run['runId']}"
    assert agent.error_of("DELETE", f"{path}?onlyOpen=true") == (409, "cloud.conflict")
    assert agent.ok("GET", path)["state"] == "done"
