"""``memoair projects``, ``agents``, ``indexes``, ``calls`` and ``memories``: what they show, change and refuse."""

import json
from typing import Any

import pytest
from cli.imports import cloud_environment
from support.clouds import Client, RunningCloud, session_end, session_start, turn
from support.commands import CommandResult, memoair


@pytest.fixture
def environ(client: Client) -> dict[str, str]:
    """The environment of a project with two calls of one caller and one of another, who said control characters."""
    client.send(
        session_start("s1"),
        turn("t1", seq=2, said="I live in Leeds.", occurredAt="2026-03-02T09:31:00Z"),
        turn("t2", seq=3, said="Read me \x1b]0;owned\x07 the [bold]list[/bold]."),
        session_end("e1", occurredAt="2026-03-02T09:36:00Z"),
    )
    later = {"occurredAt": "2026-03-05T09:30:00Z"}
    client.send(session_start("s2", "call-2", **later), turn("t3", "call-2", **later))
    other = client.with_identity(**{**client.identity, "user": "ben"})
    other.send(session_start("s3", "call-3", name="Ben", occurredAt="2026-03-04T09:30:00Z"))
    other.close()
    return {**cloud_environment(client), "COLUMNS": "200"}


def run(environ: dict[str, str], *arguments: str, code: int = 0) -> CommandResult:
    return memoair(*arguments, code=code, **environ)


def rows(done: CommandResult) -> list[list[str]]:
    return [line.split() for line in done.out.splitlines()]


def test_calls_are_listed_the_latest_first_with_their_length(environ: dict[str, str]) -> None:
    done = run(environ, "calls", "list")
    assert rows(done)[0] == ["began", "minutes", "turns", "caller", "agent", "call"]
    assert [row[-1] for row in rows(done)[1:]] == ["call-2", "call-3", "call-1"]
    assert rows(done)[-1][:4] == ["2026-03-02", "09:30", "6.0", "2"]
    assert done.err == ""


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (("--user", "ben"), ["call-3"]),
        (("--since", "2026-03-04"), ["call-2", "call-3"]),
        (("--since", "2026-03-04", "--until", "2026-03-05T10:30:00+01:00"), ["call-3"]),
        (("--agent", "another"), []),
    ],
)
def test_calls_are_limited_to_a_caller_an_agent_and_a_period(
    environ: dict[str, str], options: tuple[str, ...], calls: list[str]
) -> None:
    done = run(environ, "calls", "list", "--json", *options)
    assert [call["sessionId"] for call in json.loads(done.out)] == calls


def test_a_list_that_goes_on_says_so(environ: dict[str, str]) -> None:
    done = run(environ, "calls", "list", "--limit", "2")
    assert len(rows(done)) == 3
    assert done.err == "only the first 2 are shown; pass a larger --limit for more\n"


def test_an_invalid_time_is_refused(environ: dict[str, str]) -> None:
    done = run(environ, "calls", "list", "--since", "yesterday", code=2)
    assert done.err == "--since yesterday: write a date (2026-03-02) or a time (2026-03-02T09:30:00+01:00)\n"


def test_a_call_is_shown_turn_by_turn_and_its_words_do_not_control_the_terminal(environ: dict[str, str]) -> None:
    done = run(environ, "calls", "show", "call-1")
    assert "caller  I live in Leeds." in done.out
    assert "the [bold]list[/bold]." in done.out
    assert not [sign for sign in done.out if not sign.isprintable() and sign != "\n"]
    assert done.out.splitlines()[-1] == "2 turns"
    whole = json.loads(run(environ, "calls", "show", "call-1", "--json").out)
    assert [event["type"] for event in whole["events"]] == ["session_start", "turn", "turn", "session_end"]


def test_of_an_interrupted_and_a_corrected_turn_the_call_shows_what_holds(
    client: Client, environ: dict[str, str]
) -> None:
    heard = {"turnId": "t", "userText": "Go on.", "assistantText": "The whole answer.", "metadata": {"heard": "The wh"}}
    tools = {"toolCalls": [{"name": "look_up"}, {"id": 1}, "?"]}
    client.send(
        turn("t4", "call-2", 3, payload={**heard, **tools}),
        turn("t5", "call-2", 4, payload={"turnId": "t-2", "userText": "New.", "assistantText": "", "corrects": "t3"}),
    )
    done = run(environ, "calls", "show", "call-2")
    assert "agent   The wh [interrupted]" in done.out
    assert "tool    look_up" in done.out
    assert done.out.count("tool    unnamed") == 2
    assert "My parcel is late." not in done.out
    assert done.out.splitlines()[-1] == "2 turns"


def test_an_unknown_call_is_an_error_of_one_line(environ: dict[str, str]) -> None:
    done = run(environ, "calls", "show", "call-9", code=1)
    assert done.err.count("\n") == 1
    assert "unknown session" in done.err


def test_memories_are_listed_corrected_and_deleted(
    client: Client, cloud: RunningCloud, environ: dict[str, str]
) -> None:
    cloud.run_tasks()
    environ["MEMOAIR_USER_ID"] = client.identity["user"]
    (memory,) = (each for each in listed_memories(environ) if "Leeds" in each["text"])
    run(environ, "memories", "correct", memory["memoryId"], "--text", "Ana lives in York.", "--value", "York")
    shown = run(environ, "memories", "list")
    assert "Ana lives in York." in shown.out
    assert "corrected" in shown.out
    assert "either --text or --value" in run(environ, "memories", "correct", memory["memoryId"], code=2).err
    run(environ, "memories", "delete", memory["memoryId"])
    assert not [each for each in listed_memories(environ) if each["memoryId"] == memory["memoryId"]]
    environ["MEMOAIR_USER_ID"] = "ben"
    assert run(environ, "memories", "list").err == "nothing was learned about this caller\n"


def listed_memories(environ: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(environ, "memories", "list", "--json").out)
    return found


def test_indexes_are_listed_shown_and_deleted(client: Client, environ: dict[str, str]) -> None:
    assert run(environ, "indexes", "list").err == "the project has no indexes\n"
    documents = [{"id": f"d{number}", "text": "Boots can be returned."} for number in range(3)]
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": documents})
    assert rows(run(environ, "indexes", "list"))[1][:4] == ["faq", "3", "3", "1"]
    assert [row[0] for row in rows(run(environ, "indexes", "show", "faq"))[1:]] == ["d0", "d1", "d2"]
    assert run(environ, "indexes", "delete", "faq", code=2).err == "nothing was deleted: pass --yes\n"
    run(environ, "indexes", "delete", "faq", "--yes")
    assert json.loads(run(environ, "indexes", "list", "--json").out) == []


def test_agents_are_listed_shown_and_deleted_and_their_calls_stay(client: Client, environ: dict[str, str]) -> None:
    agent = client.identity["agent"]
    assert [row[0] for row in rows(run(environ, "agents", "list"))[1:]] == [agent]
    assert f"id: {agent}\n" in run(environ, "agents", "show", agent).out
    run(environ, "agents", "delete", agent, "--yes")
    assert "unknown agent" in run(environ, "agents", "show", agent, code=1).err
    assert len(json.loads(run(environ, "calls", "list", "--json").out)) == 3


def test_a_project_is_deleted_with_all_that_it_has(
    client: Client, cloud: RunningCloud, environ: dict[str, str]
) -> None:
    project = client.identity["project"]
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [{"id": "d", "text": "Boots."}]})
    cloud.run_tasks()
    file = client.ok("GET", "/v1/voice-sdk/bootstrap")["orgFile"]["sha256"]
    assert cloud.services.blobs.exists(file)
    assert project in [row[0] for row in rows(run(environ, "projects", "list"))]
    assert f"id: {project}\n" in run(environ, "projects", "show", project).out
    assert run(environ, "projects", "delete", project, code=2).err == "nothing was deleted: pass --yes\n"
    run(environ, "users", "hold", "ben", "--reason", "a dispute")
    assert "legal hold" in run(environ, "projects", "delete", project, "--yes", code=1).err
    run(environ, "users", "lift", "ben", "--reason", "settled")
    removed = json.loads(run(environ, "projects", "delete", project, "--yes", "--json").out)["removed"]
    assert removed == {"users": 2, "sessions": 3, "events": 7, "documents": 1, "agents": 1}
    assert "unknown project" in run(environ, "projects", "show", project, code=1).err
    assert "unknown project" in run(environ, "projects", "delete", project, "--yes", code=1).err
    assert "unknown project" in run(environ, "calls", "list", code=1).err
    assert not cloud.services.blobs.exists(file)


def test_the_names_of_the_first_releases_still_work(environ: dict[str, str]) -> None:
    for name in ("project", "agent", "index"):
        run(environ, name, "list")
