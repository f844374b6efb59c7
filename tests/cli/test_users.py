"""``memoair users``: callers are found, exported, held and erased from the command line."""

import json
import stat
from pathlib import Path

import pytest
from cli.imports import cloud_environment
from support.clouds import Client, session_start, turn
from support.commands import memoair
from support.devices import device

from memoair_runtime.storage.user_folder import UserFolder


@pytest.fixture
def environ(client: Client, tmp_path: Path) -> dict[str, str]:
    return {**cloud_environment(client), "MEMOAIR_RUNTIME_STORAGE_ROOT": str(tmp_path / "storage")}


def test_callers_are_listed_by_page_and_search(client: Client, environ: dict[str, str]) -> None:
    for user, name in (("ada", "Ada"), ("bob/1", "Bob"), ("eve", "Eve")):
        client.with_identity(user=user).send(session_start("s", name=name), turn("t"))
    page = json.loads(memoair("users", "list", "--limit", "2", "--json", **environ).out)
    assert [user["userId"] for user in page["users"]] == ["ada", "bob/1"]
    rest = json.loads(memoair("users", "list", "--cursor", page["next"], "--json", **environ).out)
    assert ([user["userId"] for user in rest["users"]], rest["next"]) == (["eve"], None)
    shown = memoair("users", "list", "BOB", **environ).out
    assert "bob/1" in shown
    assert "ada" not in shown
    assert "eve" in memoair("users", "list", "--seen-after", "2026-03-01", "--order", "lastSeen", **environ).out
    assert memoair("users", "list", "--seen-before", "2026-03-01", "--json", **environ).out.startswith('{"users": []')
    assert "not a time" in memoair("users", "list", "--seen-after", "soon", code=1, **environ).err


def test_a_caller_is_shown_without_control_characters(client: Client, environ: dict[str, str]) -> None:
    client.with_identity(user="bob/1").send(session_start("s", name="Bob \x1b[31m"), turn("t"))
    shown = memoair("users", "show", "bob/1", **environ).out
    assert "bob/1" in shown
    assert "\x1b" not in shown
    detail = json.loads(memoair("users", "show", "bob/1", "--json", **environ).out)
    assert (detail["counts"]["events"], detail["held"], detail["holds"]) == (2, False, [])
    assert "cloud.not_found" in memoair("users", "show", "nobody", code=1, **environ).err


def test_an_export_is_private_complete_and_never_replaced_by_mistake(
    client: Client, environ: dict[str, str], tmp_path: Path
) -> None:
    client.with_identity(user="ada").send(session_start("s"), turn("t", said="I live in Lisbon."))
    output = tmp_path / "ada.json"
    memoair("users", "export", "ada", "--output", str(output), **environ)
    export = json.loads(output.read_bytes())
    assert (export["format"], len(export["events"])) == ("memoair.user-export", 2)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    output.write_text("mine")
    assert "--force" in memoair("users", "export", "ada", "--output", str(output), code=1, **environ).err
    assert output.read_text() == "mine"
    memoair("users", "export", "ada", "--output", str(output), "--force", **environ)
    assert json.loads(output.read_bytes())["events"] == export["events"]
    missing = tmp_path / "nobody.json"
    assert "cloud.not_found" in memoair("users", "export", "nobody", "--output", str(missing), code=1, **environ).err
    assert [path.name for path in tmp_path.glob("*.json*")] == ["ada.json"]


def test_without_a_cloud_the_export_is_of_this_machine(environ: dict[str, str], tmp_path: Path) -> None:
    project, root = environ["MEMOAIR_PROJECT_ID"], Path(environ["MEMOAIR_RUNTIME_STORAGE_ROOT"])
    with device(None, root, project_id=project, user_id="ada") as runtime:
        runtime.save("t1", "I live in Lisbon.")
    output = tmp_path / "ada.json"
    memoair("users", "export", "ada", "--local", "--output", str(output), **environ)
    export = json.loads(output.read_bytes())
    assert export["format"] == "memoair.device-export"
    assert [event["payload"]["userText"] for event in export["events"] if event["type"] == "turn"] == [
        "I live in Lisbon."
    ]
    done = memoair("users", "export", "eve", "--local", "--output", str(tmp_path / "eve.json"), code=1, **environ)
    assert "nothing of this caller" in done.err


def test_a_caller_is_forgotten_here_and_in_the_cloud_with_a_receipt(client: Client, environ: dict[str, str]) -> None:
    project, root = environ["MEMOAIR_PROJECT_ID"], Path(environ["MEMOAIR_RUNTIME_STORAGE_ROOT"])
    with device(
        None, root, project_id=project, user_id="ada", cloud_key=client.key, cloud_base_url=client.url
    ) as runtime:
        runtime.save("t1", "I live in Lisbon.")
        assert runtime.flush()["pending"] == 0
    assert "--yes" in memoair("users", "forget", "ada", code=2, **environ).err
    done = json.loads(memoair("users", "forget", "ada", "--yes", "--json", **environ).out)
    assert done["receipt"]["removed"]["events"] == 2
    assert done["thisMachine"] == {"status": "removed", "sessions": 1}
    assert not UserFolder(root, project, "ada").path.exists()
    assert client.ok("GET", f"/v1/voice-sdk/erasures/{done['receipt']['digest']}")["removed"]["events"] == 2
    shown = memoair("users", "forget", "ada", "--yes", **environ).out
    assert "this machine    nothing" in shown


def test_a_held_caller_is_not_forgotten(client: Client, environ: dict[str, str]) -> None:
    client.with_identity(user="ada").send(session_start("s"), turn("t"))
    placed = memoair("users", "hold", "ada", "--reason", "case 12", "--by", "legal", **environ).out
    assert "case 12" in placed
    assert "cloud.legal_hold" in memoair("users", "forget", "ada", "--yes", code=1, **environ).err
    lifted = json.loads(memoair("users", "lift", "ada", "--reason", "settled", "--json", **environ).out)
    assert lifted["liftReason"] == "settled"
    project = environ["MEMOAIR_PROJECT_ID"]
    memoair("project", "hold", project, "--reason", "case 13", **environ)
    assert "cloud.legal_hold" in memoair("users", "forget", "ada", "--yes", code=1, **environ).err
    memoair("project", "hold", project, "--reason", "settled", "--lift", **environ)
    memoair("users", "forget", "ada", "--yes", **environ)


def test_what_is_kept_here_under_an_invalid_id_is_exported_and_erased(
    client: Client, environ: dict[str, str], tmp_path: Path
) -> None:
    project, root = environ["MEMOAIR_PROJECT_ID"], Path(environ["MEMOAIR_RUNTIME_STORAGE_ROOT"])
    with device(None, root, project_id=project, user_id="ada") as runtime:
        runtime.save("t1", "I live in Lisbon.")
    folder = UserFolder(root, project, "ada ")
    UserFolder(root, project, "ada").path.rename(folder.path)
    output = tmp_path / "ada.json"
    memoair("users", "export", "ada ", "--local", "--output", str(output), **environ)
    assert "Lisbon" in output.read_text()
    assert "white space" in memoair("users", "show", "ada ", code=1, **environ).err
    done = json.loads(memoair("users", "forget", "ada ", "--yes", "--json", **environ).out)
    assert (done["receipt"], done["thisMachine"]) == (None, {"status": "removed", "sessions": 1})
    assert not folder.path.exists()


def test_without_an_answer_of_the_cloud_a_caller_is_erased_here(environ: dict[str, str]) -> None:
    project, root = environ["MEMOAIR_PROJECT_ID"], Path(environ["MEMOAIR_RUNTIME_STORAGE_ROOT"])
    with device(None, root, project_id=project, user_id="ada") as runtime:
        runtime.save("t1", "I live in Lisbon.")
    done = memoair("users", "forget", "ada", "--yes", code=1, **{**environ, "MEMOAIR_BASE_URL": "http://127.0.0.1:1"})
    assert "this machine    removed" in done.out
    assert "on this machine only" in done.err
    assert not UserFolder(root, project, "ada").path.exists()


def test_the_periods_of_a_project_are_set_and_tried(client: Client, environ: dict[str, str]) -> None:
    project = environ["MEMOAIR_PROJECT_ID"]
    client.with_identity(user="ada").send(turn("t", occurredAt="2020-01-01T00:00:00Z"))
    tried = memoair("project", "set", project, "--keep-turns", "30", "--dry-run", **environ).out
    assert tried == "would be dropped now: 1 turn, 0 callers, 0 traces\n"
    memoair("project", "set", project, "--keep-turns", "30", "--keep-callers", "365", "--facts", "drop", **environ)
    shown = json.loads(memoair("project", "show", project, "--json", **environ).out)
    assert shown["retention"] == {"turnsDays": 30, "callersDays": 365, "tracesDays": 30, "facts": "drop"}
    memoair("project", "set", project, "--keep-turns", "forever", **environ)
    assert client.ok("GET", f"/v1/projects/{project}")["retention"]["turnsDays"] is None
    assert "forever" in memoair("project", "set", project, "--keep-turns", "long", code=1, **environ).err
    assert "cloud.invalid" in memoair("project", "set", project, "--keep-turns", "0", code=1, **environ).err
    assert "nothing to set" in memoair("project", "set", project, code=1, **environ).err
