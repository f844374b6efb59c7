"""``memoair doctor``: what is well, what is wrong, and that it tells how to mend it and nothing that it must not."""

import json
import os
import re
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest
from cli.imports import identity
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.calls import write_call
from support.clients import clients_over, say
from support.clouds import Client, RunningCloud, session_end, turn
from support.commands import memoair
from support.runtimes import PROJECT, USER, RunningRuntime
from support.waiting import eventually

from memoair_cli.doctor import storage, storage_report
from memoair_cli.doctor.cloud import check_cloud
from memoair_cli.doctor.findings import Check, DoctorContext, Finding, FindingStatus
from memoair_cli.doctor.installation import check_kernel, check_packages
from memoair_cli.doctor.server import check_server
from memoair_cli.doctor.storage import check_storage
from memoair_cli.doctor.storage_report import check_held
from memoair_cli.doctor.variables import KNOWN, check_variables
from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.models import CallSession

ROOT = Path(__file__).parents[2]
SAID = [("I live in Lisbon.", "Noted."), ("My secret is blue.", "I see.")]


@pytest.fixture
def here(tmp_path: Path) -> DoctorContext:
    """A machine without a cloud, where nobody has called yet."""
    return DoctorContext(tmp_path / "storage", "https://backend.memoair.space", "", "", "", None, None)


def found(check: Check, surroundings: DoctorContext) -> dict[str, list[Finding]]:
    """What a check finds, by what was looked at. Whoever complains must say how to mend it."""
    told: dict[str, list[Finding]] = {}
    for finding in check(surroundings):
        assert finding.remedy or finding.status is not FindingStatus.PROBLEM, finding
        told.setdefault(finding.check, []).append(finding)
    return told


def problems(check: Check, surroundings: DoctorContext) -> list[tuple[str, str]]:
    return [
        (finding.check, finding.message)
        for findings in found(check, surroundings).values()
        for finding in findings
        if finding.status is FindingStatus.PROBLEM
    ]


# The whole of it


def test_a_machine_on_which_all_is_well_is_told_so_with_its_cloud_and_its_server(
    cloud: RunningCloud, client: Client, tmp_path: Path, nothing_left_behind: None
) -> None:
    write_call(tmp_path / "storage", "call-1", SAID)
    (tmp_path / "storage").chmod(0o700)
    server = ("--database-url", str(cloud.services.engine.url), "--blob-url", cloud.services.blobs.url)
    done = memoair("doctor", "--storage", tmp_path / "storage", *server, "--json", **identity(client))
    told = json.loads(done.out)

    assert told["ok"] is True
    assert [each["check"] for each in told["findings"] if each["status"] == "problem"] == []
    names = [each["check"] for each in told["findings"]]
    assert list(dict.fromkeys(names)) == [
        *("python", "packages", "kernel", "variables", "runtime", "storage", "disk", "locks", f"project {PROJECT}"),
        *("cloud", "clock", "key", "project", "agent", "bootstrap", "database", "migrations", "work", "store"),
    ]
    runtime = next(each["message"] for each in told["findings"] if each["check"] == "runtime")
    assert re.match(r"started in \d+ ms, the next one in \d+ ms; a turn kept in [\d.]+ ms and recalled", runtime)
    secrets = [identity(client)["MEMOAIR_API_KEY"], USER, "call-1", "Lisbon", "secret"]
    assert not [secret for secret in secrets if secret in done.out + done.err]
    assert sorted(path.name for path in (tmp_path / "storage").iterdir()) == [PROJECT], "nothing is left behind"


def test_a_machine_on_which_much_is_wrong_is_told_all_of_it_and_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir(mode=0o755)
    (tmp_path / "storage").chmod(0o755)
    wrong = {
        "MEMOAIR_RUNTIME_BINARY": "/no/such/runtime",
        "MEMOAIR_STORAGE_ROOT": "/x",
        "MEMOAIR_API_KEY": "memoair_pk_secret",
        "MEMOAIR_BASE_URL": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://somebody:word@proxy.example",
    }
    done = memoair("doctor", "--storage", tmp_path / "storage", code=1, **wrong)

    assert "problem  variables      MEMOAIR_STORAGE_ROOT is set, and nobody reads it" in done.out
    assert "-> write MEMOAIR_RUNTIME_STORAGE_ROOT" in done.out
    assert "problem  runtime        runtime.not_found: there is no program /no/such/runtime" in done.out
    assert f"-> chmod 700 {tmp_path / 'storage'}" in done.out
    assert "problem  cloud          the cloud at http://127.0.0.1:9 can't be reached: nothing listens there" in done.out
    assert "note     proxies        HTTPS_PROXY set" in done.out
    assert "4 problems found" in done.out
    assert not [secret for secret in ("memoair_pk_secret", "word", "proxy.example") if secret in done.out + done.err]


def test_a_check_that_fails_itself_is_a_problem_and_the_others_go_on(
    here: DoctorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: DoctorContext) -> Iterator[Finding]:
        raise KeyError("secret")
        yield

    monkeypatch.setattr("memoair_cli.doctor.command._CHECKS", (broken, check_kernel))
    done = memoair("doctor", "--json", code=1)

    first, second = json.loads(done.out)["findings"]
    assert (first["check"], first["message"]) == ("broken", "could not be looked at: KeyError")
    assert second["check"] == "kernel"


# What is installed, and the environment


def test_every_variable_that_our_sources_read_is_known() -> None:
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
    assert not (whole | short) - KNOWN


def test_a_variable_of_a_server_is_known_by_its_settings(here: DoctorContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOAIR_CLOUD_PORT", "8080")
    assert not problems(check_variables, here)
    monkeypatch.setenv("MEMOAIR_CLOUD_PROT", "8080")
    assert [message for _, message in problems(check_variables, here)] == [
        "MEMOAIR_CLOUD_PROT is set, and nobody reads it"
    ]


def test_a_package_that_is_too_old_or_missing_is_told(here: DoctorContext, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "attrs>=23.2",
        "numpy>=99.1",
        "no-such-package>=1.0",
        'huey>=99; extra == "cloud"',
        "psycopg[binary]>=3.2",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: wanted)
    [(_, message)] = problems(check_packages, here)

    assert re.search(r"; numpy [\d.]+ is older than 99.1, no-such-package is missing$", message)


# The storage root


def test_a_root_that_is_a_file_or_can_not_be_written_is_told(
    here: DoctorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storage").touch()
    assert problems(check_storage, here) == [("storage", f"{tmp_path / 'storage'} is no folder")]
    (tmp_path / "storage").unlink()
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: os.open("/no/such/file", 0))  # root may write anywhere
    assert problems(check_storage, here) == [("storage", f"{tmp_path} can't be written: No such file or directory")]


def test_a_disk_that_is_nearly_full_slow_or_far_is_told(here: DoctorContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_LEAST_FREE", 1 << 62)
    monkeypatch.setattr(storage, "_SLOW_MS", 0.0)
    monkeypatch.setattr(storage, "_file_system", lambda _: "nfs4")
    told = found(check_storage, here)

    assert [finding.status for finding in told["disk"]] == [FindingStatus.PROBLEM, FindingStatus.NOTE]
    assert "each turn waits for the network" in told["file system"][0].message


def test_locks_that_keep_nobody_out_are_told(here: DoctorContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_TRY", "pass")  # another process gets the lock whoever holds it
    assert problems(check_storage, here) == [
        ("locks", "a lock that is held keeps nobody out: two runtimes could write one log")
    ]
    monkeypatch.setattr(storage, "_TRY", "raise SystemExit(3)")
    assert problems(check_storage, here) == [
        ("locks", "a lock that is free lets nobody in: two runtimes could write one log")
    ]


# What lies in it


def mark_of(log: Path) -> int:
    """As the runtime's outbox knows a log."""
    return zlib.crc32(log.read_bytes()[:48])


def all_of(log: Path) -> tuple[str, list[int]]:
    """The cursor of a call whose log has been sent."""
    return log.parent.name, [log.stat().st_size, mark_of(log)]


def write_outbox(caller: Path, cursors: dict[str, Any]) -> None:
    (caller / "outbox.json").write_text(json.dumps({"cloud": "x", "sessions": cursors}))


def test_leases_are_counted_the_living_and_the_dead(here: DoctorContext, tmp_path: Path) -> None:
    assert found(check_held, here) == {}
    runtime = RunningRuntime(tmp_path / "storage", SHARED="1")
    try:
        runtime.start("call-1")
        [first] = found(check_held, here)[f"project {PROJECT}"][:1]
        runtime.kill()
        [then] = found(check_held, here)[f"project {PROJECT}"][:1]
    finally:
        runtime.close()

    assert first.message == "1 caller, 1 call; 1 served now"
    assert (
        then.message
        == "1 caller, 1 call; nobody is served now, 1 lease of processes that are gone (the next call takes over)"
    )
    assert then.status is FindingStatus.OK


def test_what_has_not_been_sent_and_what_was_refused_is_counted(here: DoctorContext, tmp_path: Path) -> None:
    logs = [write_call(tmp_path / "storage", f"call-{number}", SAID) for number in range(3)]
    caller = logs[0].parents[1]
    check = f"project {PROJECT}"
    assert [each.message for each in found(check_held, here)[check]] == [
        "1 caller, 3 calls; nobody is served now",
        "nothing was ever sent to a cloud from here",
    ]

    first_line = len(logs[1].read_bytes().splitlines(keepends=True)[0])
    write_outbox(caller, {**dict(map(all_of, logs[:1])), "call-1": [first_line, mark_of(logs[1])], "call-9": [7, 1]})
    assert found(check_held, here)[check][1].message.startswith("5 events not sent to the cloud yet; the oldest waits")
    assert not problems(check_held, here)
    os.utime(logs[2], (1, 1))
    [(_, message)] = problems(check_held, here)
    assert re.search(r"waits for [\d,]+ days$", message)

    write_outbox(caller, dict(map(all_of, logs)))
    forgotten = [{"eventId": id_, "code": "cloud.forgotten"} for id_ in ("a", "b", "a")]  # one of them twice
    refused = [*forgotten, {"code": "cloud.invalid"}]
    (caller / "refused.jsonl").write_text("".join(json.dumps(each) + "\n" for each in refused))
    told = found(check_held, here)[check]
    assert told[1].message == "the cloud refused 3 events for good (cloud.forgotten 2, cloud.invalid 1)"
    assert told[2].message == "everything has been sent to the cloud"


def test_a_cursor_of_another_log_or_behind_the_end_hides_nothing(here: DoctorContext, tmp_path: Path) -> None:
    log = write_call(tmp_path / "storage", "call-1", SAID)
    size, mark = log.stat().st_size, mark_of(log)
    for cursor in ([size, mark + 1], [size + 1, mark], [-1, mark], [size], ["1", mark]):
        write_outbox(log.parents[1], {"call-1": cursor})
        assert found(check_held, here)[f"project {PROJECT}"][1].message.startswith("3 events not sent"), cursor


def test_what_real_runtimes_have_sent_is_not_waiting_and_to_another_cloud_nothing_was(
    here: DoctorContext, client: Client, nothing_left_behind: None
) -> None:
    told = identity(client)
    there = attrs.evolve(here, base_url=told["MEMOAIR_BASE_URL"] + "/", api_key=told["MEMOAIR_API_KEY"])
    project, agent = told["MEMOAIR_PROJECT_ID"], told["MEMOAIR_AGENT_ID"]
    with clients_over(here.storage_root) as new_client:
        sends = new_client(api_key=there.api_key, project_id=project, agent_id=agent, cloud_base_url=client.url)
        assert say(sends, "ana", "I live in Lisbon.")
        eventually(lambda: sends.stats()["runtimes"][0]["unsynced_events"] == 0, within_s=30.0)
    check = f"project {project}"
    messages = ["1 caller, 1 call; nobody is served now", "everything has been sent to the cloud"]
    assert [finding.message for finding in found(check_held, there)[check]] == messages
    elsewhere = found(check_held, attrs.evolve(there, base_url="https://other.example"))[check][1]
    assert elsewhere.message.startswith("3 events not sent to the cloud yet")


def test_a_line_that_is_torn_or_still_being_written_is_no_event_that_waits(here: DoctorContext, tmp_path: Path) -> None:
    log = write_call(tmp_path / "storage", "call-1", SAID)
    write_outbox(log.parents[1], dict([all_of(log)]))
    with log.open("ab") as file:
        file.write(b'{"eventId": "torn')
    assert found(check_held, here)[f"project {PROJECT}"][1].message == "everything has been sent to the cloud"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"sessions": 7}', b'{"sessions": {"call-1": "x"}}', b"\xff"])
def test_a_file_that_is_damaged_hides_nothing(here: DoctorContext, tmp_path: Path, content: bytes) -> None:
    caller = write_call(tmp_path / "storage", "call-1", SAID).parents[1]
    for name in ("outbox.json", "refused.jsonl", "lease.json"):
        (caller / name).write_bytes(content)
    told = found(check_held, here)[f"project {PROJECT}"]

    assert told[0].message == "1 caller, 1 call; nobody is served now"
    assert any("3 events not sent" in each.message for each in told)


def test_a_machine_with_very_many_calls_is_looked_at_for_a_while_only(
    here: DoctorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_report, "_MOST_CALLS", 2)
    for number in range(3):
        write_call(tmp_path / "storage", f"call-{number}", SAID)
    assert "more than 2 calls" in found(check_held, here)["memory"][0].message


# The cloud


def test_a_key_a_project_and_an_agent_that_are_not_there_are_told(here: DoctorContext, client: Client) -> None:
    told = identity(client)
    there = attrs.evolve(
        here,
        base_url=told["MEMOAIR_BASE_URL"],
        api_key=told["MEMOAIR_API_KEY"],
        project_id=told["MEMOAIR_PROJECT_ID"],
        agent_id="agent_other",
    )

    assert problems(check_cloud, there) == [("agent", "agent_other is no agent of this project")]
    [(check, message)] = problems(check_cloud, attrs.evolve(there, project_id="proj_other"))
    assert (check, message) == ("project", "proj_other: the cloud refuses: cloud.not_found: unknown project")
    [(check, message)] = problems(check_cloud, attrs.evolve(there, api_key="memoair_pk_other"))
    assert check == "key"
    assert "memoair_pk_other" not in message
    assert problems(check_cloud, attrs.evolve(there, api_key="")) == [("key", "MEMOAIR_API_KEY is not set")]
    [(_, message)] = problems(check_cloud, attrs.evolve(there, api_key="memoair_pk_ä"))
    assert message == "MEMOAIR_API_KEY holds a character that no key has"
    unset = found(check_cloud, attrs.evolve(there, project_id=""))
    assert unset["project"][0].status is FindingStatus.NOTE


@pytest.fixture
def odd_cloud(here: DoctorContext) -> Iterator[tuple[DoctorContext, dict[str, Any]]]:
    """A machine with a cloud that answers as a test says: by path, a status and a body, and a ``Date``."""
    answers: dict[str, Any] = {"date": None, "/healthz": (200, {"status": "ok"}), "/readyz": (200, {"status": "ok"})}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {"error": {"code": "cloud.not_found", "message": "no"}}))
            content = json.dumps(body).encode()
            self.send_response_only(status)
            if answers["date"] is not None:
                self.send_header("Date", answers["date"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield attrs.evolve(here, base_url=f"http://127.0.0.1:{server.server_address[1]}", api_key="k"), answers
        server.shutdown()
        thread.join()


def test_a_cloud_that_is_not_ready_or_none_or_lives_in_another_time_is_told(
    odd_cloud: tuple[DoctorContext, dict[str, Any]],
) -> None:
    there, answers = odd_cloud
    gone = {"error": {"code": "cloud.unavailable", "message": "the database does not answer"}}
    answers |= {
        "/readyz": (503, gone),
        "/v1/projects": (200, {"projects": []}),
        "date": "Fri, 31 Dec 1999 23:59:59 GMT",
    }
    told = problems(check_cloud, there)
    assert told[0] == ("cloud", "it is not ready: cloud.unavailable: the database does not answer")
    assert re.fullmatch(r"our clock is \d+ s ahead", told[1][1])

    answers["/healthz"] = (200, {"hello": "world"})
    [(_, message)] = problems(check_cloud, there)
    assert message.endswith("this is no MemoAir cloud")


def test_what_lies_with_the_cloud_is_not_blamed_on_the_key(odd_cloud: tuple[DoctorContext, dict[str, Any]]) -> None:
    there, answers = odd_cloud
    for status, code, remedy in (
        (429, "cloud.rate_limited", "wait a while"),
        (503, "cloud.unavailable", "ask the operator"),
        (401, "cloud.unauthorized", "set MEMOAIR_API_KEY"),
    ):
        answers["/v1/projects"] = (status, {"error": {"code": code, "message": "no", "details": {}}})
        [finding] = found(check_cloud, there)["key"]
        assert finding.status is FindingStatus.PROBLEM
        assert (finding.remedy or "").startswith(remedy)


def test_a_way_on_which_the_project_gets_lost_is_told(odd_cloud: tuple[DoctorContext, dict[str, Any]]) -> None:
    there, answers = odd_cloud
    answers |= {"/v1/projects": (200, {"projects": []}), "/v1/projects/proj_acme": (200, {"id": "proj_acme"})}
    told = problems(check_cloud, attrs.evolve(there, project_id="proj_acme"))
    assert told == [("bootstrap", "the cloud refuses: cloud.not_found: no")]

    answers["/v1/voice-sdk/bootstrap"] = (200, {"orgManifestVersion": 0})
    assert not problems(check_cloud, attrs.evolve(there, project_id="proj_acme"))


def test_a_cloud_over_plain_http_is_a_problem_unless_it_is_here(here: DoctorContext) -> None:
    told = problems(check_cloud, attrs.evolve(here, base_url="http://cloud.invalid", api_key="k"))
    assert told[0] == ("cloud", "http://cloud.invalid is plain HTTP: keys and words can be read on the way")
    assert told[1][1].endswith("its name is not known to the DNS")
    assert len(problems(check_cloud, attrs.evolve(here, base_url="http://localhost:9", api_key="k"))) == 1


# A server


def test_a_database_that_is_not_there_old_or_of_another_kind_is_told(here: DoctorContext, tmp_path: Path) -> None:
    missing = attrs.evolve(here, database_url=f"sqlite:///{tmp_path / 'none.db'}", blob_url=tmp_path.as_uri())
    assert problems(check_server, missing) == [("database", "there is none of this name")]
    assert not (tmp_path / "none.db").exists()
    engine = make_engine(f"sqlite:///{tmp_path / 'none.db'}")
    engine.connect().close()
    engine.dispose()
    [(check, _)] = problems(check_server, missing)
    assert check == "migrations"
    assert problems(check_server, attrs.evolve(here, database_url="mysql://x/y"))[0][0] == "server"
    (tmp_path / "none.db").write_bytes(b"no database" * 1_000)
    assert problems(check_server, missing) == [("database", "it can't be used: file is not a database")]


def test_a_store_that_can_not_be_written_is_told(here: DoctorContext, cloud: RunningCloud, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    there = attrs.evolve(
        here, database_url=str(cloud.services.engine.url), blob_url=(tmp_path / "file" / "blobs").as_uri()
    )
    [(check, _)] = problems(check_server, there)
    assert check == "store"


def test_work_that_was_given_up_is_told_and_can_be_tried_again(
    here: DoctorContext, cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = attrs.evolve(here, database_url=str(cloud.services.engine.url), blob_url=cloud.services.blobs.url)
    client.send(turn("e1"), session_end("e2"))
    with Session(cloud.services.engine) as session, session.begin():
        mine = CallSession.project_id == client.identity["project"]
        session.execute(update(CallSession).where(mine).values(failures=99, failure="ValueError"))

    [(check, message)] = problems(check_server, there)
    assert check == "work"
    assert re.fullmatch(
        rf"project {client.identity['project']}: 1 call not learned from since [\d-]+, given up", message
    )
    monkeypatch.setattr("memoair_cli.doctor.command._CHECKS", (check_server,))
    server = {"MEMOAIR_CLOUD_DATABASE_URL": there.database_url, "MEMOAIR_CLOUD_BLOB_URL": there.blob_url}
    done = memoair("doctor", "--revive", **server)
    assert "note     work           1 piece of work that was given up will be tried again" in done.out
    assert "given up, " not in done.out
    assert not problems(check_server, there)
    refused = memoair("doctor", "--revive", code=2)
    assert refused.err == "--revive needs a server's database: --database-url or MEMOAIR_CLOUD_DATABASE_URL\n"
