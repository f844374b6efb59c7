"""The ``memoair cloud`` commands and their companions, as real processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from support.clouds import Client, turn
from support.commands import free_port, is_ready, run_in_background, run_process, serve_arguments
from support.waiting import eventually

from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.models import Account, OrgBuild
from memoair_cloud.settings import CloudSettings

pytestmark = pytest.mark.timeout(600)


@pytest.mark.extended_on("sqlite")
def test_two_servers_can_start_at_once_on_an_empty_database(new_database: Callable[[], str], tmp_path: Path) -> None:
    url = new_database()
    ports = [free_port(), free_port()]
    with (
        run_in_background(*serve_arguments(tmp_path, url, ports[0]), home=tmp_path) as one,
        run_in_background(*serve_arguments(tmp_path, url, ports[1]), home=tmp_path) as other,
    ):
        eventually(lambda: all(map(is_ready, ports)), within_s=120)
        issued = json.loads(run_process("cloud", "init", "--json", "--database-url", url, home=tmp_path))
        clients = [Client(f"http://127.0.0.1:{port}", issued["apiKey"], user="u") for port in ports]
        project = clients[0].ok("POST", "/v1/projects", {"name": "Acme", "slug": "acme"})
        both = [client.with_identity(project=project["id"]) for client in clients]
        assert both[0].send(turn("one"))["accepted"] == ["one"]
        assert both[1].send(turn("one"))["duplicate"] == ["one"]
        for running in (one, other):
            running.send_signal(signal.SIGTERM)
        for running in (one, other):
            assert running.wait(60) == 0
    logs = "".join(log.read_text() for log in tmp_path.glob("serve-*.log"))
    assert "Traceback" not in logs
    assert '"action": "request_failed"' not in logs
    for secret in (issued["apiKey"], "parcel", "call-1"):
        assert secret not in logs


@pytest.mark.extended_on("sqlite")
def test_a_first_customer_is_set_up_from_the_command_line(new_database: Callable[[], str], tmp_path: Path) -> None:
    url, port = new_database(), free_port()
    issued = json.loads(run_process("cloud", "init", "--database-url", url, "--account", "F", "--json", home=tmp_path))
    assert sorted(issued) == ["accountId", "apiKey"]
    again = json.loads(run_process("cloud", "init", "--database-url", url, "--account", "F", "--json", home=tmp_path))
    assert again["accountId"] == issued["accountId"]
    assert again["apiKey"] != issued["apiKey"]
    other = run_process("cloud", "init", "--database-url", url, "--account", "G", home=tmp_path)
    assert "memoair_pk_" in other
    assert issued["accountId"] not in other
    listed = json.loads(run_process("cloud", "keys", "--database-url", url, "--json", home=tmp_path))
    assert [key["accountName"] for key in listed] == ["F", "F", "G"]
    assert "is revoked" in run_process("cloud", "revoke", listed[1]["keyId"], "--database-url", url, home=tmp_path)
    listing = run_process("cloud", "keys", "--database-url", url, home=tmp_path)
    assert [("revoked" in line, "never used" in line) for line in listing.splitlines()] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    assert issued["apiKey"] not in listing
    assert "unknown key" in run_process("cloud", "revoke", "key_x", "--database-url", url, home=tmp_path, status=1)

    environ: dict[str, Any] = {"MEMOAIR_API_KEY": issued["apiKey"], "MEMOAIR_BASE_URL": f"http://127.0.0.1:{port}"}
    (tmp_path / "faq.jsonl").write_text(
        "".join(json.dumps({"id": f"{n}", "text": f"Answer {n}."}) + "\n" for n in range(150))
    )
    (tmp_path / "hours.md").write_text("We open at nine.")
    with (
        run_in_background(*serve_arguments(tmp_path, url, port, "--no-worker"), home=tmp_path),
        run_in_background(
            "cloud", "worker", "--database-url", url, "--blob-url", (tmp_path / "blobs").as_uri(), home=tmp_path
        ) as worker,
    ):
        eventually(lambda: is_ready(port), within_s=120)
        project = run_process("project", "create", "Acme Returns", home=tmp_path, **environ).strip()
        assert project == "proj_acme-returns"
        environ["MEMOAIR_PROJECT_ID"] = project
        agent = run_process("agent", "create", home=tmp_path, **environ).strip()
        assert agent.startswith("agent_acme-returns_")
        files = [str(tmp_path / name) for name in ("faq.jsonl", "hours.md")]
        added = run_process("index", "add", "faq", *files, home=tmp_path, MEMOAIR_AGENT_ID=agent, **environ)
        assert added == "151 documents sent; faq has 151 chunks, version 2\n"
        output = run_process("project", "create", "Acme Returns", home=tmp_path, status=1, **environ)
        assert "cloud.conflict" in output
        engine = make_engine(CloudSettings(database_url=url).database_url)
        with Session(engine) as session:
            eventually(lambda: session.scalar(select(OrgBuild.version)) == 2 or session.rollback(), within_s=120)
            assert session.scalar(select(func.count()).select_from(Account)) == 2
        engine.dispose()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) >= 1


def test_keys_with_scopes_are_created_and_listed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cloud.db'}"

    def run(*arguments: str, **options: Any) -> Any:
        return run_process("cloud", *arguments, "--database-url", url, home=tmp_path, **options)

    account = json.loads(run("init", "--account", "F", "--json"))["accountId"]
    issued = json.loads(run("key", "create", "--account", "F", "--scope", "read", "--name", "desk", "--json"))
    assert issued["accountId"] == account
    assert issued["apiKey"].startswith("memoair_pk_")
    listed = {key["keyId"]: key for key in json.loads(run("keys", "--json"))}
    assert {name: listed[issued["keyId"]][name] for name in ("name", "scope", "projectId")} == {
        "name": "desk",
        "scope": "read",
        "projectId": None,
    }
    assert sorted(key["scope"] for key in listed.values()) == ["everything", "read"]
    assert " read " in run("keys")


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://"])
def test_an_invalid_database_url_is_reported_in_one_line(url: str, tmp_path: Path) -> None:
    output = run_process("cloud", "init", "--database-url", url, home=tmp_path, status=2)

    assert output.startswith("database_url: ")
    assert len(output.splitlines()) == 1


def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['fastapi'] = None; from memoair_cli.app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "cloud", "init"], capture_output=True, text=True, env={"HOME": str(tmp_path)}
    )

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "fastapi is not installed; run: pip install 'memoair-voice[cloud]>=0.4'\n"


def test_the_command_line_does_not_import_the_cloud() -> None:
    code = "import sys, memoair_cli.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"fastapi", "sqlalchemy", "memoair_cloud"} & set(loaded)
