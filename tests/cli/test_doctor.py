"""``memoair doctor``: findings, remedies, and that it shows no secrets."""

import json
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from cli.imports import cloud_environment
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.calls import write_call
from support.clients import clients_over, say
from support.clouds import Client, RunningCloud, session_end, turn
from support.commands import memoair
from support.loopback_server import LoopbackHandler, LoopbackServer
from support.runtimes import PROJECT, USER, RunningRuntime
from support.waiting import eventually

from memoair_cli.doctor import storage
from memoair_cli.doctor.checks import (
    KNOWN_VARIABLES,
    Check,
    DoctorContext,
    Finding,
    FindingStatus,
    check_kernel,
    check_packages,
    check_variables,
)
from memoair_cli.doctor.cloud import check_cloud, check_server
from memoair_cli.doctor.storage import check_storage, check_storage_contents
from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.models import CallSession
from memoair_runtime.settings import cloud_id_of
from memoair_voice_sync._turns.spool import TurnSpool
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync._turns.unsaved_turn import UnsavedTurn
from memoair_voice_sync._turns.user import User

ROOT = Path(__file__).parents[2]
ELSEWHERE = "https://other.example"
SAID = [("I live in Lisbon.", "Noted."), ("My secret is blue.", "I see.")]


@pytest.fixture
def machine(tmp_path: Path) -> DoctorContext:
    """A machine without a cloud and without calls."""
    return DoctorContext(tmp_path / "storage", "https://backend.memoair.space", "", "", "", None, None)


def findings_of(check: Check, context: DoctorContext) -> dict[str, list[Finding]]:
    """Return the findings of a check by their subject. Every problem must have a remedy."""
    findings: dict[str, list[Finding]] = {}
    for finding in check(context):
        assert finding.remedy or finding.status is not FindingStatus.PROBLEM, finding
        findings.setdefault(finding.check, []).append(finding)
    return findings


def problems(check: Check, context: DoctorContext) -> list[tuple[str, str]]:
    return [
        (finding.check, finding.message)
        for findings in findings_of(check, context).values()
        for finding in findings
        if finding.status is FindingStatus.PROBLEM
    ]


# The whole command


def test_a_healthy_machine_with_cloud_and_server_has_no_problems(
    cloud: RunningCloud, client: Client, tmp_path: Path, nothing_left_behind: None
) -> None:
    write_call(tmp_path / "storage", "call-1", SAID, cloud_url=ELSEWHERE)
    (tmp_path / "storage").chmod(0o700)
    server = ("--database-url", str(cloud.services.engine.url), "--blob-url", cloud.services.blobs.url)
    done = memoair("doctor", "--storage", tmp_path / "storage", *server, "--json", **cloud_environment(client))
    report = json.loads(done.out)

    assert report["ok"] is True
    assert [each["check"] for each in report["findings"] if each["status"] == "problem"] == []
    names = [each["check"] for each in report["findings"]]
    assert list(dict.fromkeys(names)) == [
        *("python", "packages", "kernel", "variables", "runtime", "storage", "disk", "locks", f"project {PROJECT}"),
        *("cloud", "clock", "key", "project", "agent", "bootstrap", "database", "migrations", "work", "store"),
    ]
    runtime = next(each["message"] for each in report["findings"] if each["check"] == "runtime")
    assert re.match(r"started in \d+ ms, a second one in \d+ ms; saved a turn in [\d.]+ ms and recalled it", runtime)
    secrets = [cloud_environment(client)["MEMOAIR_API_KEY"], USER, "call-1", "Lisbon", "secret"]
    assert not [secret for secret in secrets if secret in done.out + done.err]
    assert sorted(path.name for path in (tmp_path / "storage").iterdir()) == [PROJECT], (
        "the check leaves nothing behind"
    )


def test_all_problems_are_reported_with_remedies(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir(mode=0o755)
    (tmp_path / "storage").chmod(0o755)
    environ = {
        "MEMOAIR_RUNTIME_BINARY": "/no/such/runtime",
        "MEMOAIR_STORAGE_ROOT": "/x",
        "MEMOAIR_API_KEY": "memoair_pk_secret",
        "MEMOAIR_BASE_URL": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://somebody:word@proxy.example",
    }
    done = memoair("doctor", "--storage", tmp_path / "storage", code=1, **environ)

    assert "problem  variables      MEMOAIR_STORAGE_ROOT is set but unused (a typo?)" in done.out
    assert "-> did you mean MEMOAIR_RUNTIME_STORAGE_ROOT?" in done.out
    assert "problem  runtime        runtime.not_found: there is no program /no/such/runtime" in done.out
    assert f"-> chmod 700 {tmp_path / 'storage'}" in done.out
    assert "problem  cloud          the cloud at http://127.0.0.1:9 is unreachable: nothing listens there" in done.out
    assert "note     proxies        HTTPS_PROXY set" in done.out
    assert "4 problems found" in done.out
    assert not [secret for secret in ("memoair_pk_secret", "word", "proxy.example") if secret in done.out + done.err]


def test_a_check_that_crashes_is_a_problem_and_the_others_run(
    machine: DoctorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: DoctorContext) -> Iterator[Finding]:
        raise KeyError("secret")
        yield

    monkeypatch.setattr("memoair_cli.doctor.command._CHECKS", (broken, check_kernel))
    done = memoair("doctor", "--json", code=1)

    first, second = json.loads(done.out)["findings"]
    assert (first["check"], first["message"]) == ("broken", "the check failed: KeyError")
    assert second["check"] == "kernel"


# Installation and environment


def test_every_variable_in_the_sources_is_known() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for name in ("memoair_cli", "memoair_voice_sync", "memoair_runtime")
        for path in (ROOT / name).rglob("*.py")
        if path.parent.name != "doctor"
    ]
    whole = {name for text in sources for name in re.findall(r'"(MEMOAIR_[A-Z_]*[A-Z])"', text)}
    settings = (ROOT / "memoair_runtime" / "settings.py").read_text(encoding="utf-8")
    short = {f"MEMOAIR_RUNTIME_{name}" for name in re.findall(r'(?:get|_identifier)\(\s*"([A-Z_]+)"', settings)}

    assert len(whole) > 8
    assert len(short) > 8
    assert not (whole | short) - KNOWN_VARIABLES


def test_variables_of_a_server_are_known_by_its_settings(
    machine: DoctorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMOAIR_CLOUD_PORT", "8080")
    assert not problems(check_variables, machine)
    monkeypatch.setenv("MEMOAIR_CLOUD_PROT", "8080")
    assert [message for _, message in problems(check_variables, machine)] == [
        "MEMOAIR_CLOUD_PROT is set but unused (a typo?)"
    ]


def test_an_old_or_missing_package_is_a_problem(machine: DoctorContext, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "attrs>=23.2",
        "numpy>=99.1",
        "no-such-package>=1.0",
        'huey>=99; extra == "cloud"',
        "psycopg[binary]>=3.2",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: wanted)
    [(_, message)] = problems(check_packages, machine)

    assert re.search(r"; numpy [\d.]+ is older than 99.1, no-such-package is missing$", message)


# The storage root


def test_a_storage_root_that_is_a_file_or_not_writable_is_a_problem(
    machine: DoctorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storage").touch()
    assert problems(check_storage, machine) == [("storage", f"{tmp_path / 'storage'} is not a folder")]
    (tmp_path / "storage").unlink()
    monkeypatch.setattr(
        Path, "mkdir", lambda *_, **__: os.open("/no/such/file", 0)
    )  # running as root, the test could write anywhere
    assert problems(check_storage, machine) == [("storage", f"{tmp_path} is not writable: No such file or directory")]


def test_a_full_or_slow_disk_and_a_network_file_system_are_reported(
    machine: DoctorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_MIN_FREE_BYTES", 1 << 62)
    monkeypatch.setattr(storage, "_SLOW_MS", 0.0)
    monkeypatch.setattr(storage, "_file_system_type", lambda _: "nfs4")
    findings = findings_of(check_storage, machine)

    assert [finding.status for finding in findings["disk"]] == [FindingStatus.PROBLEM, FindingStatus.NOTE]
    assert "every saved turn waits for the network" in findings["file system"][0].message


def test_locks_that_do_not_exclude_other_processes_are_a_problem(
    machine: DoctorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_LOCK_SCRIPT", "pass")  # another process gets the lock while it is held
    assert problems(check_storage, machine) == [
        ("locks", "a held lock does not exclude other processes: two runtimes could write to one log")
    ]
    monkeypatch.setattr(storage, "_LOCK_SCRIPT", "raise SystemExit(3)")
    assert problems(check_storage, machine) == [
        ("locks", "a released lock still excludes other processes: two runtimes could write to one log")
    ]


# The contents of the storage root


def fingerprint_of(log: Path) -> int:
    """Return the fingerprint of a log in the outbox."""
    return zlib.crc32(log.read_bytes()[:48])


def cursor_at_end(log: Path) -> tuple[str, list[int]]:
    """Return the cursor of a call whose log is sent completely."""
    return log.parent.name, [log.stat().st_size, fingerprint_of(log)]


def write_outbox(caller: Path, cursors: dict[str, Any]) -> None:
    (caller / "outbox.json").write_text(json.dumps({"cloud": cloud_id_of(ELSEWHERE), "sessions": cursors}))


def test_active_and_stale_leases_are_counted(machine: DoctorContext, tmp_path: Path) -> None:
    assert findings_of(check_storage_contents, machine) == {}
    runtime = RunningRuntime(tmp_path / "storage", SHARED="1")
    try:
        runtime.start("call-1")
        [first] = findings_of(check_storage_contents, machine)[f"project {PROJECT}"][:1]
        runtime.kill()
        [later] = findings_of(check_storage_contents, machine)[f"project {PROJECT}"][:1]
    finally:
        runtime.close()

    assert first.message == "1 caller, 1 call; 1 active lease"
    assert later.message == "1 caller, 1 call; no active lease, 1 stale lease (the next call takes over)"
    assert later.status is FindingStatus.OK


def test_unsent_and_rejected_events_are_counted(machine: DoctorContext, tmp_path: Path) -> None:
    logs = [write_call(tmp_path / "storage", f"call-{number}", SAID, cloud_url=ELSEWHERE) for number in range(3)]
    caller = logs[0].parents[1]
    check = f"project {PROJECT}"
    assert [each.message.partition(";")[0] for each in findings_of(check_storage_contents, machine)[check]] == [
        "1 caller, 3 calls",
        "9 events not sent to the cloud yet",
    ]

    first_line = len(logs[1].read_bytes().splitlines(keepends=True)[0])
    write_outbox(
        caller,
        {**dict(map(cursor_at_end, logs[:1])), "call-1": [first_line, fingerprint_of(logs[1])], "call-9": [7, 1]},
    )
    assert findings_of(check_storage_contents, machine)[check][1].message.startswith(
        "5 events not sent to the cloud yet; the oldest has waited"
    )
    assert not problems(check_storage_contents, machine)
    os.utime(logs[2], (1, 1))
    [(_, message)] = problems(check_storage_contents, machine)
    assert re.search(r"has waited for [\d,]+ days$", message)

    write_outbox(caller, dict(map(cursor_at_end, logs)))
    forgotten = [{"eventId": id_, "code": "cloud.forgotten"} for id_ in ("a", "b", "a")]  # one of them is repeated
    rejected = [*forgotten, {"code": "cloud.invalid"}]
    (caller / "refused.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rejected))
    findings = findings_of(check_storage_contents, machine)[check]
    assert findings[1].message == "the cloud permanently rejected 3 events (cloud.forgotten 2, cloud.invalid 1)"
    assert findings[2].message == "all events for the cloud are sent to it"


def test_an_invalid_cursor_hides_no_unsent_events(machine: DoctorContext, tmp_path: Path) -> None:
    log = write_call(tmp_path / "storage", "call-1", SAID, cloud_url=ELSEWHERE)
    size, mark = log.stat().st_size, fingerprint_of(log)
    for cursor in ([size, mark + 1], [size + 1, mark], [-1, mark], [size], ["1", mark]):
        write_outbox(log.parents[1], {"call-1": cursor})
        assert findings_of(check_storage_contents, machine)[f"project {PROJECT}"][1].message.startswith(
            "3 events not sent"
        ), cursor


def test_events_sent_by_a_runtime_count_as_sent_to_this_cloud_only(machine: DoctorContext, client: Client) -> None:
    environ = cloud_environment(client)
    there = attrs.evolve(machine, base_url=environ["MEMOAIR_BASE_URL"] + "/", api_key=environ["MEMOAIR_API_KEY"])
    project, agent = environ["MEMOAIR_PROJECT_ID"], environ["MEMOAIR_AGENT_ID"]
    with clients_over(machine.storage_root) as new_client:
        sends = new_client(api_key=there.api_key, project_id=project, agent_id=agent, cloud_base_url=client.url)
        assert say(sends, "ana", "I live in Lisbon.")
        eventually(lambda: sends.stats()["runtimes"][0]["unsynced_events"] == 0, within_s=30.0)
    check = f"project {project}"
    messages = ["1 caller, 1 call; no active lease", "all events for the cloud are sent to it"]
    assert [finding.message for finding in findings_of(check_storage_contents, there)[check]] == messages
    elsewhere = attrs.evolve(there, base_url=ELSEWHERE)
    assert [finding.message for finding in findings_of(check_storage_contents, elsewhere)[check]] == messages


def test_an_incomplete_last_line_is_not_an_unsent_event(machine: DoctorContext, tmp_path: Path) -> None:
    log = write_call(tmp_path / "storage", "call-1", SAID, cloud_url=ELSEWHERE)
    write_outbox(log.parents[1], dict([cursor_at_end(log)]))
    with log.open("ab") as file:
        file.write(b'{"eventId": "torn')
    assert (
        findings_of(check_storage_contents, machine)[f"project {PROJECT}"][1].message
        == "all events for the cloud are sent to it"
    )


def test_turns_that_wait_in_the_outbox_of_clients_are_counted_and_a_problem_after_a_while(
    machine: DoctorContext, tmp_path: Path
) -> None:
    root = tmp_path / "storage"
    assert "outbox" not in findings_of(check_storage_contents, machine)
    spool = TurnSpool(root, PROJECT, None)
    turn = Turn.parse({"turn_id": "t1", "user_text": "zanzibarplum", "assistant_text": ""})
    for _ in range(3):
        spool.append(UnsavedTurn(User.parse({"id": "quincetree"}, None), turn, "call-1"))
    spool.close()
    [finding] = findings_of(check_storage_contents, machine)["outbox"]
    assert (finding.status, "3 turns" in finding.message) == (FindingStatus.NOTE, True)
    [path] = (root / "outbox.d").glob("*.jsonl")
    os.utime(path, (time.time() - 3_600,) * 2)
    [finding] = findings_of(check_storage_contents, machine)["outbox"]
    assert (finding.status, "60 minutes" in finding.message) == (FindingStatus.PROBLEM, True)
    assert "zanzibarplum" not in repr(finding)
    assert "quincetree" not in repr(finding)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"sessions": 7}', b'{"sessions": {"call-1": "x"}}', b"\xff"])
def test_damaged_files_hide_no_unsent_events(machine: DoctorContext, tmp_path: Path, content: bytes) -> None:
    caller = write_call(tmp_path / "storage", "call-1", SAID, cloud_url=ELSEWHERE).parents[1]
    for name in ("outbox.json", "refused.jsonl", "lease.json"):
        (caller / name).write_bytes(content)
    findings = findings_of(check_storage_contents, machine)[f"project {PROJECT}"]

    assert findings[0].message == "1 caller, 1 call; no active lease"
    assert any("3 events not sent" in each.message for each in findings)


def test_the_number_of_checked_calls_is_limited(
    machine: DoctorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_MAX_SESSIONS", 2)
    for number in range(3):
        write_call(tmp_path / "storage", f"call-{number}", SAID, cloud_url=ELSEWHERE)
    assert "more than 2 calls" in findings_of(check_storage_contents, machine)["memory"][0].message


# The cloud


def test_an_unknown_key_or_project_or_agent_is_a_problem(machine: DoctorContext, client: Client) -> None:
    environ = cloud_environment(client)
    there = attrs.evolve(
        machine,
        base_url=environ["MEMOAIR_BASE_URL"],
        api_key=environ["MEMOAIR_API_KEY"],
        project_id=environ["MEMOAIR_PROJECT_ID"],
        agent_id="agent_other",
    )

    assert problems(check_cloud, there) == [("agent", "agent_other is not an agent of this project")]
    [(check, message)] = problems(check_cloud, attrs.evolve(there, project_id="proj_other"))
    assert (check, message) == (
        "project",
        "proj_other: the cloud rejected the request: cloud.not_found: unknown project",
    )
    [(check, message)] = problems(check_cloud, attrs.evolve(there, api_key="memoair_pk_other"))
    assert check == "key"
    assert "memoair_pk_other" not in message
    assert problems(check_cloud, attrs.evolve(there, api_key="")) == [("key", "MEMOAIR_API_KEY is not set")]
    [(_, message)] = problems(check_cloud, attrs.evolve(there, api_key="memoair_pk_ä"))
    assert message == "MEMOAIR_API_KEY has a character that is invalid in keys"
    unset = findings_of(check_cloud, attrs.evolve(there, project_id=""))
    assert unset["project"][0].status is FindingStatus.NOTE


@pytest.fixture
def scripted_cloud(machine: DoctorContext) -> Iterator[tuple[DoctorContext, dict[str, Any]]]:
    """A machine, and the replies of its cloud: a status and a body by path, and a ``Date`` header."""
    answers: dict[str, Any] = {"date": None, "/healthz": (200, {"status": "ok"}), "/readyz": (200, {"status": "ok"})}

    class Answers(LoopbackServer):
        def answer(self, handler: LoopbackHandler) -> None:
            status, body = answers.get(handler.path, (404, {"error": {"code": "cloud.not_found", "message": "no"}}))
            headers = {} if answers["date"] is None else {"Date": answers["date"]}
            handler.reply(json.dumps(body).encode(), status, **headers)

    with Answers() as server:
        yield attrs.evolve(machine, base_url=server.url, api_key="k"), answers


def test_a_cloud_that_is_not_ready_or_not_a_cloud_or_has_another_time_is_a_problem(
    scripted_cloud: tuple[DoctorContext, dict[str, Any]],
) -> None:
    there, answers = scripted_cloud
    gone = {"error": {"code": "cloud.unavailable", "message": "the database does not answer"}}
    answers |= {
        "/readyz": (503, gone),
        "/v1/projects": (200, {"projects": []}),
        "date": "Fri, 31 Dec 1999 23:59:59 GMT",
    }
    found = problems(check_cloud, there)
    assert found[0] == ("cloud", "not ready: cloud.unavailable: the database does not answer")
    assert re.fullmatch(r"this machine's clock is \d+ s ahead", found[1][1])

    answers["/healthz"] = (200, {"hello": "world"})
    [(_, message)] = problems(check_cloud, there)
    assert message.endswith("the server is not a MemoAir cloud")


def test_problems_of_the_cloud_are_not_blamed_on_the_key(scripted_cloud: tuple[DoctorContext, dict[str, Any]]) -> None:
    there, answers = scripted_cloud
    for status, code, remedy in (
        (429, "cloud.rate_limited", "wait a while"),
        (503, "cloud.unavailable", "ask the operator"),
        (401, "cloud.unauthorized", "set MEMOAIR_API_KEY"),
    ):
        answers["/v1/projects"] = (status, {"error": {"code": code, "message": "no", "details": {}}})
        [finding] = findings_of(check_cloud, there)["key"]
        assert finding.status is FindingStatus.PROBLEM
        assert (finding.remedy or "").startswith(remedy)


def test_a_proxy_that_removes_the_project_header_is_a_problem(
    scripted_cloud: tuple[DoctorContext, dict[str, Any]],
) -> None:
    there, answers = scripted_cloud
    answers |= {"/v1/projects": (200, {"projects": []}), "/v1/projects/proj_acme": (200, {"id": "proj_acme"})}
    found = problems(check_cloud, attrs.evolve(there, project_id="proj_acme"))
    assert found == [("bootstrap", "the cloud rejected the request: cloud.not_found: no")]

    answers["/v1/voice-sdk/bootstrap"] = (200, {"orgManifestVersion": 0})
    assert not problems(check_cloud, attrs.evolve(there, project_id="proj_acme"))


def test_plain_http_is_a_problem_except_on_this_machine(machine: DoctorContext) -> None:
    found = problems(check_cloud, attrs.evolve(machine, base_url="http://cloud.invalid", api_key="k"))
    assert found[0] == ("cloud", "http://cloud.invalid is plain HTTP: keys and calls are sent unencrypted")
    assert found[1][1].endswith("its host name cannot be resolved")
    assert len(problems(check_cloud, attrs.evolve(machine, base_url="http://localhost:9", api_key="k"))) == 1


# A server


def test_a_missing_or_outdated_or_unsupported_database_is_a_problem(machine: DoctorContext, tmp_path: Path) -> None:
    missing = attrs.evolve(machine, database_url=f"sqlite:///{tmp_path / 'none.db'}", blob_url=tmp_path.as_uri())
    assert problems(check_server, missing) == [("database", "the database does not exist")]
    assert not (tmp_path / "none.db").exists()
    engine = make_engine(f"sqlite:///{tmp_path / 'none.db'}")
    engine.connect().close()
    engine.dispose()
    [(check, _)] = problems(check_server, missing)
    assert check == "migrations"
    assert problems(check_server, attrs.evolve(machine, database_url="mysql://x/y"))[0][0] == "server"
    (tmp_path / "none.db").write_bytes(b"no database" * 1_000)
    assert problems(check_server, missing) == [("database", "the database is unavailable: file is not a database")]


def test_an_unwritable_blob_store_is_a_problem(machine: DoctorContext, cloud: RunningCloud, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    there = attrs.evolve(
        machine, database_url=str(cloud.services.engine.url), blob_url=(tmp_path / "file" / "blobs").as_uri()
    )
    [(check, _)] = problems(check_server, there)
    assert check == "store"


def test_failed_work_is_a_problem_and_can_be_retried(
    machine: DoctorContext, cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = attrs.evolve(machine, database_url=str(cloud.services.engine.url), blob_url=cloud.services.blobs.url)
    client.send(turn("e1"), session_end("e2"))
    with Session(cloud.services.engine) as session, session.begin():
        mine = CallSession.project_id == client.identity["project"]
        session.execute(update(CallSession).where(mine).values(failures=99, failure="ValueError"))

    [(check, message)] = problems(check_server, there)
    assert check == "work"
    assert re.fullmatch(
        rf"project {client.identity['project']}: 1 call not learned from since [\d-]+, failed permanently", message
    )
    monkeypatch.setattr("memoair_cli.doctor.command._CHECKS", (check_server,))
    server = {"MEMOAIR_CLOUD_DATABASE_URL": there.database_url, "MEMOAIR_CLOUD_BLOB_URL": there.blob_url}
    done = memoair("doctor", "--retry-failed", **server)
    assert "note     work           1 failed job will be retried" in done.out
    assert "failed permanently, " not in done.out
    assert not problems(check_server, there)
    rejected = memoair("doctor", "--retry-failed", code=2)
    assert rejected.err == "--retry-failed requires a server's database: --database-url or MEMOAIR_CLOUD_DATABASE_URL\n"


def test_the_old_spelling_of_retry_failed_still_works() -> None:
    done = memoair("doctor", "--revive", code=2)
    warning = "--revive is now --retry-failed; the old name will be removed in the next release\n"
    assert done.err.startswith(f"{warning}--retry-failed")
    assert "--revive" not in memoair("doctor", "--help").out
