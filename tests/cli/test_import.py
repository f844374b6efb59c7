"""``memoair import`` into a cloud: imported events, rejections, failures, and repeated runs."""

import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cli.event_server import EventServer, ScriptedReply, error_reply
from cli.gate import Gate
from cli.imports import STARTED_AT, NewFile, cloud_environment, run_import, stand_in_environment, turn, turn_ids_of
from support.clouds import Client
from support.commands import MEMOAIR, environment, memoair, start_process
from support.waiting import eventually

from memoair_transcripts import parse_timestamp

# Imported events


def test_calls_are_imported_completely_with_times_and_each_turn_once(client: Client, new_file: NewFile) -> None:
    more = {"userName": "Ana", "assistantName": "Juno", "metadata": {"line": "returns"}}
    file = new_file(turn(1, **more), turn(1, "bob"), turn(2), turn(3), turn(2, "bob", userName="Bob"))
    summary = run_import(file, **cloud_environment(client))

    assert summary["turns"] == {"kept": 5, "alreadyThere": 0, "refused": 0}
    assert (summary["files"], summary["sessions"], summary["interrupted"], summary["error"]) == (1, 2, False, None)
    events = client.with_identity(user="ana").events("ana-1")
    assert [event["type"] for event in events] == ["session_start", "turn", "turn", "turn", "session_end"]
    assert events[0]["payload"] == {
        "user": {"id": "ana", "name": "Ana"},
        "metadata": {"line": "returns", "assistantName": "Juno"},
    }
    assert events[1]["payload"] == {
        "turnId": "t1",
        "userText": "Parcel number 1 is late.",
        "assistantText": "I see.",
        "toolCalls": [],
        "metadata": {"line": "returns"},
    }
    assert events[-1]["payload"] == {"reason": "imported"}
    minutes = [parse_timestamp(event["occurredAt"]) - STARTED_AT for event in events]
    assert minutes == [timedelta(minutes=number) for number in (1, 1, 2, 3, 3)]
    [session] = client.ok("GET", "/v1/voice-sdk/users/ana/sessions")["sessions"]
    assert (session["turnCount"], session["agentId"]) == (3, client.identity["agent"])
    assert parse_timestamp(session["endedAt"]) == STARTED_AT + timedelta(minutes=3)
    users = {user["userId"]: user["name"] for user in client.ok("GET", "/v1/voice-sdk/users")["users"]}
    assert users == {"ana": "Ana", "bob": "Bob"}

    again = run_import(file, **cloud_environment(client))
    afresh = run_import(file, "--restart", **cloud_environment(client))
    assert again["turns"] == afresh["turns"] == {"kept": 0, "alreadyThere": 5, "refused": 0}
    assert client.with_identity(user="ana").events("ana-1") == events


def test_a_text_from_standard_input_is_imported_as_one_call(client: Client) -> None:
    text = "occurredAt: 2026-03-02T09:30:00Z\n\n[00:05] Juno: Hello.\n[00:10] Dana: It is late,\nmy parcel.\n"
    arguments = ("-", "--user", "ana", "--caller", "Dana", "--session", "call-9")
    summary = run_import(*arguments, stdin=text, **cloud_environment(client))

    assert summary["turns"]["kept"] == 2
    events = [event for event in client.with_identity(user="ana").events("call-9") if event["type"] == "turn"]
    texts = [(event["payload"]["userText"], event["payload"]["assistantText"]) for event in events]
    assert texts == [("", "Hello."), ("It is late, my parcel.", "")]
    assert [event["occurredAt"][14:19] for event in events] == ["30:05", "30:10"]
    assert client.ok("GET", "/v1/voice-sdk/users")["users"][0]["name"] == "Dana"


def test_half_of_a_file_twice_and_then_all_of_it_saves_each_turn_once_in_order(
    client: Client, new_file: NewFile
) -> None:
    rows = [{**turn(number), "turnId": None} for number in range(20)]
    for row in rows[5:]:
        del row["occurredAt"]  # most of them without a time, and none with an id
    half = new_file(*rows[:12], name="half.jsonl")
    for file in (half, half, new_file(*rows)):
        run_import(file, "--restart", **cloud_environment(client))

    events = client.with_identity(user="ana").events("ana-1")
    texts = [event["payload"]["userText"] for event in events if event["type"] == "turn"]
    assert texts == [row["userText"] for row in rows]
    assert events[-1]["type"] == "session_end"


def test_a_call_in_two_files_is_in_order_whichever_is_imported_first(client: Client, new_file: NewFile) -> None:
    late = new_file(*(turn(number) for number in range(5, 9)), name="late.jsonl")
    early = new_file(*(turn(number) for number in range(5)), name="early.jsonl")
    for file in (late, early):
        run_import(file, **cloud_environment(client))

    events = client.with_identity(user="ana").events("ana-1")
    assert turn_ids_of(events) == [f"t{number}" for number in range(9)]
    assert (events[0]["type"], events[-1]["type"]) == ("session_start", "session_end")


def test_many_interleaved_calls_in_one_file_are_each_in_order(client: Client, new_file: NewFile) -> None:
    calls = [f"call-{number}" for number in range(150)]  # more than the initial limit of open calls
    file = new_file(*(turn(number, "ana", call) for number in range(3) for call in calls))
    summary = run_import(file, **cloud_environment(client))

    assert (summary["sessions"], summary["turns"]["kept"]) == (150, 450)
    for call in (calls[0], calls[77], calls[-1]):
        events = client.with_identity(user="ana").events(call)
        assert turn_ids_of(events) == ["t0", "t1", "t2"]
        assert (events[0]["type"], events[-1]["type"]) == ("session_start", "session_end")


VTT = "00:00:0{0}.000 --> 00:00:0{0}.900\n<v {1}>{2}\n"
SRT = "{0}\n00:00:0{0},000 --> 00:00:0{0},900\n{1}: {2}\n"
SAID = [(1, "Agent", "Hello."), (4, "Caller", "My parcel is late."), (6, "Agent", "I see.")]
BEGAN_MS = int(STARTED_AT.timestamp() * 1_000)
CALL_BY_FORMAT = {
    "vtt": "WEBVTT\n\n" + "\n".join(VTT.format(*each) for each in SAID),
    "srt": "\n".join(SRT.format(*each) for each in SAID),
    "twilio.json": json.dumps(
        {
            "sentences": [
                {"media_channel": len(who), "start_time": str(at), "transcript": text} for at, who, text in SAID
            ]
        }
    ),
    "vapi.json": json.dumps(
        {
            "id": "call-9",
            "startedAt": STARTED_AT.isoformat(),
            "messages": [
                {"role": "bot" if who == "Agent" else "user", "message": text, "secondsFromStart": at}
                for at, who, text in SAID
            ],
        },
        indent=2,
    ),
    "retell.json": json.dumps(
        {
            "call_id": "call-9",
            "start_timestamp": BEGAN_MS,
            "transcript_object": [
                {"role": "agent" if who == "Agent" else "user", "content": text, "words": [{"start": at}]}
                for at, who, text in SAID
            ],
        }
    ),
}


@pytest.mark.parametrize("format_", CALL_BY_FORMAT)
def test_every_format_is_imported_with_its_times_and_only_once(client: Client, tmp_path: Path, format_: str) -> None:
    file = tmp_path / f"call.{format_}"
    file.write_text(CALL_BY_FORMAT[format_])
    labels = ("--caller", "6", "--assistant", "5") if "twilio" in format_ else ()
    options = ("--user", "ana", "--session", "call-9", "--occurred-at", STARTED_AT.isoformat(), *labels)
    summary = run_import(file, *options, **cloud_environment(client))
    again = run_import(file, *options, **cloud_environment(client))
    afresh = run_import(file, "--restart", *options, **cloud_environment(client))

    assert (summary["sessions"], summary["turns"]) == (1, {"kept": 2, "alreadyThere": 0, "refused": 0})
    assert again["turns"] == afresh["turns"] == {"kept": 0, "alreadyThere": 2, "refused": 0}
    events = client.with_identity(user="ana").events("call-9")
    turns = [event for event in events if event["type"] == "turn"]
    assert [event["type"] for event in events] == ["session_start", "turn", "turn", "session_end"]
    texts = [(turn["payload"]["userText"], turn["payload"]["assistantText"]) for turn in turns]
    assert texts == [("", "Hello."), ("My parcel is late.", "I see.")]
    assert [parse_timestamp(turn["occurredAt"]) - STARTED_AT for turn in turns] == [
        timedelta(seconds=at) for at in (1, 4)
    ]

    longer = {
        "vtt": VTT.format(7, "Caller", "Bye.") + "\n" + VTT.format(8, "Ghost", "Boo."),
        "srt": SRT.format(7, "Caller", "Bye.") + "\n" + SRT.format(8, "Ghost", "Boo."),
    }.get(format_)
    if longer is not None:  # a later export of the same call
        file.write_text(f"{CALL_BY_FORMAT[format_]}\n{longer}")
        more = run_import(file, *options, code=1, **cloud_environment(client))
        assert more["turns"] == {"kept": 1, "alreadyThere": 2, "refused": 1}
        assert len(client.with_identity(user="ana").events("call-9")) == 6  # including another end


def test_a_user_id_can_be_any_text(client: Client, new_file: NewFile) -> None:
    user = "+49 30/1234 Zoë 🙂"
    run_import(new_file(turn(1, user, "call-1")), **cloud_environment(client))

    assert [each["userId"] for each in client.ok("GET", "/v1/voice-sdk/users")["users"]] == [user]


# Rejections


def test_invalid_lines_are_reported_by_file_and_line_and_the_rest_is_saved(
    client: Client, new_file: NewFile, tmp_path: Path
) -> None:
    file = new_file(turn(1), b"\xff", '{"secret', turn(2, userText=3), turn(3), turn(4, "bob", "x" * 600))
    done = memoair("import", file, "--refused", tmp_path / "refused.jsonl", code=1, **cloud_environment(client))

    assert "1 file, 1 call: 2 turns saved, 0 already there, 4 rejected" in done.out
    assert f"{file}:3: not JSON; expected one object per line" in done.out
    rejections = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [each["line"] for each in rejections] == [2, 3, 4, 6]
    assert {each["file"] for each in rejections} == {str(file)}
    assert "secret" not in done.out + done.err
    assert turn_ids_of(client.with_identity(user="ana").events("ana-1")) == ["t1", "t3"]


def test_rejections_of_the_cloud_are_reported_by_line_also_in_the_next_run(
    server: EventServer, new_file: NewFile
) -> None:
    server.rejection_reason = lambda event: "it was forgotten" if event["payload"].get("turnId") == "t2" else None
    file = new_file(*(turn(number) for number in range(4)))
    first = run_import(file, code=1, **stand_in_environment(server))
    second = run_import(file, code=1, **stand_in_environment(server))

    assert first["turns"] == {"kept": 3, "alreadyThere": 0, "refused": 1}
    assert second["turns"] == {"kept": 0, "alreadyThere": 3, "refused": 1}
    assert (
        first["refused"]
        == second["refused"]
        == [{"file": str(file), "line": 3, "reason": "cloud.invalid: it was forgotten"}]
    )


def test_rejected_events_are_reported_once_per_line(server: EventServer, new_file: NewFile) -> None:
    server.rejection_reason = lambda event: "forgotten" if event["seq"] else None
    summary = run_import(new_file(turn(1), turn(2), turn(3)), code=1, **stand_in_environment(server))

    assert summary["turns"] == {"kept": 0, "alreadyThere": 0, "refused": 3}
    assert [each["line"] for each in summary["refused"]] == [1, 2, 3]


def test_rejections_before_the_resume_point_are_counted_once(server: EventServer, new_file: NewFile) -> None:
    server.rejection_reason = lambda event: "forgotten" if event["payload"].get("turnId") == "t5" else None
    file = new_file(*(turn(number) for number in range(1_000)))
    assert run_import(file, code=1, **stand_in_environment(server))["turns"] == {
        "kept": 999,
        "alreadyThere": 0,
        "refused": 1,
    }
    again = run_import(file, code=1, **stand_in_environment(server))

    assert again["turns"] == {"kept": 0, "alreadyThere": 999, "refused": 1}
    assert [each["line"] for each in again["refused"]] == [6]


def test_a_file_name_that_is_not_unicode_is_imported_and_reported(client: Client, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))
    file.write_text(json.dumps(turn(1)) + "\nsecret\n")
    for more in ([], ["--json"]):
        done = memoair("import", file, "--refused", tmp_path / "refused", *more, code=1, **cloud_environment(client))
        assert "\N{REPLACEMENT CHARACTER}.jsonl" in done.out


def test_only_the_first_rejections_are_shown(client: Client, new_file: NewFile) -> None:
    done = memoair("import", new_file(*["x"] * 100), code=1, **cloud_environment(client))

    assert done.out.count(": not JSON") == 20
    assert "... and 80 more; use --refused FILE to write all of them to a file" in done.out


def test_quiet_prints_only_rejections(client: Client, new_file: NewFile) -> None:
    assert memoair("import", new_file(turn(1)), "--quiet", **cloud_environment(client))[1:] == ("", "")
    wrong = memoair("import", new_file(turn(1), "x"), "--quiet", code=1, **cloud_environment(client))
    assert wrong.out == ""
    assert "calls.jsonl:2: not JSON" in wrong.err


def test_what_neither_side_said_is_counted_and_is_no_failure(server: EventServer, tmp_path: Path) -> None:
    file = tmp_path / "call.json"
    said = [("user", "Hi."), ("transfer_target", "secret"), ("new_role", "secret"), ("newer_role", "secret")]
    call = {"call_id": "c", "transcript_object": [{"role": role, "content": text} for role, text in said]}
    file.write_text(json.dumps({"items": [call], "has_more": False}))
    summary = run_import(file, "--user", "ana", **stand_in_environment(server))
    done = memoair("import", file, "--user", "ana", "--restart", **stand_in_environment(server))

    reasons = {"said by a person the call was transferred to": 1, "the role is unknown": 2}
    assert summary["skipped"] == {"count": 3, "reasons": reasons}
    assert summary["turns"]["refused"] == 0
    assert "passed over: 2 x the role is unknown\n" in done.out
    assert "secret" not in done.out + done.err + json.dumps([batch.events for batch in server.batches])


def test_redact_removes_numbers_before_anything_is_sent(server: EventServer, tmp_path: Path) -> None:
    file = tmp_path / "call.txt"
    file.write_text("Caller: Ring +44 20 7946 0123 or ana@example.com.\nAgent: +44 20 7946 0123, yes.\n")
    options = ("--user", "ana", "--session", "call-1")
    run_import(file, *options, "--redact", **stand_in_environment(server))
    run_import(file, *options, "--redact-kind", "email", "--restart", **stand_in_environment(server))
    run_import(file, *options, "--restart", **stand_in_environment(server))

    turns = [event for batch in server.batches for event in batch.events if event["type"] == "turn"]
    assert [(turn["payload"]["userText"], turn["payload"]["assistantText"]) for turn in turns] == [
        ("Ring [phone number] or ana@example.com.", "[phone number], yes."),
        ("Ring +44 20 7946 0123 or [e-mail address].", "+44 20 7946 0123, yes."),
        ("Ring +44 20 7946 0123 or ana@example.com.", "+44 20 7946 0123, yes."),
    ]
    assert len({turn["payload"]["turnId"] for turn in turns}) == 3  # made from the redacted words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["."], ". is a folder; pass the files in it"),
        (["-", "-"], "standard input (-) can be read only once"),
        (["-", "--occurred-at", "today"], "--occurred-at must be an ISO 8601 timestamp"),
        (["-", "--format", "otter"], "--format must be one of jsonl, text, webvtt, srt, twilio, vapi, retell"),
        (["-", "--redact-kind", "name"], "--redact-kind must be one of iban, card, phone, email"),
        (["-", "--user", " ana"], "user_id begins or ends with white space"),
        (["-", "--refused", "/nowhere/refused.jsonl"], "/nowhere/refused.jsonl is not writable"),
        (["-", "--threads", "0"], "--threads"),
        ([], "FILE"),
    ],
)
def test_invalid_options_are_reported_before_anything_is_sent(
    server: EventServer, arguments: list[str], message: str
) -> None:
    done = memoair("import", *arguments, code=2, stdin="", **stand_in_environment(server))

    assert message in done.err
    assert not server.batches


@pytest.mark.parametrize(("name", "option"), [("MEMOAIR_API_KEY", "--api-key"), ("MEMOAIR_PROJECT_ID", "--project")])
def test_a_missing_key_or_project_is_reported(server: EventServer, name: str, option: str) -> None:
    environ = {**stand_in_environment(server)}
    del environ[name]
    done = memoair("import", "-", code=2, stdin="", **environ)
    assert done.err == f"{name} is not set; set it, or pass {option}\n"


# Failing targets


def test_an_unknown_key_ends_the_import_at_once(client: Client, new_file: NewFile) -> None:
    done = memoair(
        "import", new_file(turn(1)), code=3, **{**cloud_environment(client), "MEMOAIR_API_KEY": "memoair_pk_other"}
    )

    assert "rejected the request: cloud.unauthorized" in done.err
    assert "MEMOAIR_API_KEY" in done.err
    assert "memoair_pk_other" not in done.out + done.err


def test_an_unknown_project_ends_the_import_at_once(client: Client, new_file: NewFile) -> None:
    done = memoair(
        "import", new_file(turn(1)), code=3, **{**cloud_environment(client), "MEMOAIR_PROJECT_ID": "proj_other"}
    )

    assert "rejected the request: cloud.not_found: unknown project" in done.err
    assert "run the same command again to continue" in done.err


def test_a_server_that_is_not_a_cloud_ends_the_import(server: EventServer, new_file: NewFile) -> None:
    for reply, message in (
        (ScriptedReply(200, ["hello"]), "the server is not a MemoAir cloud"),
        (ScriptedReply(200, {"hello": 1}), "the server is not a MemoAir cloud"),
        (
            ScriptedReply(200, {"accepted": [], "duplicate": [], "rejected": []}),
            "did not report the result of all events",
        ),
        (ScriptedReply(301, None, {"Location": "https://else"}), "it redirects (HTTP status 301)"),
    ):
        server.script.append(reply)
        assert message in memoair("import", new_file(turn(1)), code=3, **stand_in_environment(server)).err


def test_an_unreachable_cloud_is_reported_after_the_retry_timeout(new_file: NewFile, server: EventServer) -> None:
    unreachable = {**stand_in_environment(server), "MEMOAIR_BASE_URL": "http://user:word@127.0.0.1:9"}
    done = memoair("import", new_file(turn(1)), "--retry-timeout", "0.1", code=3, **unreachable)

    assert "the cloud at http://127.0.0.1:9 is unreachable: nothing listens there" in done.err


def test_the_old_spellings_of_options_still_work(server: EventServer, new_file: NewFile) -> None:
    unreachable = {**stand_in_environment(server), "MEMOAIR_BASE_URL": "http://127.0.0.1:9"}
    done = memoair("import", new_file(turn(1)), "--patience", "0.1", code=3, **unreachable)
    assert done.err.startswith("--patience is now --retry-timeout; the old name will be removed in the next release\n")

    file = new_file(turn(1), turn(1, "bob"))
    for _ in range(2):
        run_import(file, **stand_in_environment(server))
    assert len(server.batches) == 2 + 1, "the second run sends only the last batch again"
    done = memoair("import", file, "--anew", **stand_in_environment(server))
    assert done.err == "--anew is now --restart; the old name will be removed in the next release\n"
    assert len(server.batches) == 3 + 2

    shown = memoair("import", "--help").out
    assert "--restart" in shown
    assert "--anew" not in shown
    assert "--patience" not in shown


def test_requests_to_a_failing_cloud_are_retried(server: EventServer, new_file: NewFile) -> None:
    server.script.extend([error_reply(503, "cloud.unavailable"), ScriptedReply(0)])
    summary = run_import(
        new_file(*(turn(number) for number in range(3))), "--threads", "1", **stand_in_environment(server)
    )

    assert summary["turns"]["kept"] == 3
    assert server.turn_ids() == ["t0", "t1", "t2"]
    assert len(server.batches) == 3


def test_retry_after_is_respected(server: EventServer, new_file: NewFile) -> None:
    server.script.append(error_reply(429, "cloud.rate_limited", retryAfterS=1))
    summary = run_import(new_file(turn(1)), **stand_in_environment(server))

    assert summary["turns"]["kept"] == 1
    assert server.batches[1].at - server.batches[0].at >= 1


def test_a_retry_after_beyond_the_retry_timeout_fails(server: EventServer, new_file: NewFile) -> None:
    server.script.append(error_reply(429, "cloud.rate_limited", retryAfterS=86_400))
    done = memoair("import", new_file(turn(1)), "--retry-timeout", "5", code=3, **stand_in_environment(server))

    assert "accepts no events: cloud.rate_limited" in done.err


def test_a_batch_that_is_too_large_is_split(server: EventServer, new_file: NewFile) -> None:
    server.max_events = 7
    summary = run_import(new_file(*(turn(number) for number in range(60))), **stand_in_environment(server))

    assert summary["turns"]["kept"] == 60
    assert server.turn_ids() == [f"t{number}" for number in range(60)]


def test_an_event_that_makes_its_batch_invalid_is_rejected_alone(server: EventServer, new_file: NewFile) -> None:
    answer = server.reply_to

    def strict(headers: dict[str, str], events: list[dict[str, Any]]) -> ScriptedReply:
        is_invalid = any(event["payload"].get("turnId") == "t5" for event in events)
        return error_reply(422, "cloud.invalid", "not JSON") if is_invalid else answer(headers, events)

    server.reply_to = strict  # type: ignore[method-assign]
    summary = run_import(new_file(*(turn(number) for number in range(9))), code=1, **stand_in_environment(server))

    assert summary["turns"] == {"kept": 8, "alreadyThere": 0, "refused": 1}
    assert [each["line"] for each in summary["refused"]] == [6]


def test_key_project_agent_and_user_are_sent_in_headers(server: EventServer, new_file: NewFile) -> None:
    run_import(new_file(turn(1, "Zoë")), "--agent", "agent_7", **stand_in_environment(server))

    [batch] = server.batches
    expected = {"authorization": "Bearer memoair_pk_secret", "x-project-id": "proj_acme", "x-agent-id": "agent_7"}
    assert expected.items() <= batch.headers.items()
    assert batch.headers["x-user-id"] == "Zoë"


def test_a_terminal_shows_a_progress_bar(server: EventServer, new_file: NewFile, tmp_path: Path) -> None:
    answer, is_shown = server.reply_to, threading.Event()

    def hold(headers: dict[str, str], events: list[dict[str, Any]]) -> ScriptedReply:
        if headers["x-user-id"] != "user-0":
            is_shown.wait(60)  # otherwise the import may end before the bar is drawn again
        return answer(headers, events)

    terminal, its_end = pty.openpty()
    command = [*MEMOAIR, "import", str(new_file(*(turn(number, f"user-{number}") for number in range(12)), "x"))]
    environ = environment(tmp_path, TERM="xterm", **stand_in_environment(server))
    run_import(new_file(turn(0, "user-0"), name="before.jsonl"), **stand_in_environment(server))
    server.reply_to = hold  # type: ignore[method-assign]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=its_end, text=True) as process:
        os.close(its_end)
        shown = b""
        with suppress(OSError):  # at the end of a terminal, Linux raises this
            while block := os.read(terminal, 4_096):
                shown += block
                if b"1 already there" in shown and b"1 rejected" in shown:
                    is_shown.set()
        os.close(terminal)
        assert process.stdout is not None
        assert "11 turns saved, 1 already there" in process.stdout.read()
    assert "into proj_acme" in shown.decode()
    assert "1 already there" in shown.decode()
    assert "1 rejected" in shown.decode()
    assert "user-" not in shown.decode()


# Interrupted and repeated runs


def long_file(new_file: NewFile, turns: int = 1_200, callers: int = 20) -> Path:
    return new_file(
        *(
            turn(number, f"caller-{number // 10 % callers}", f"call-{number // 10}", userText=f"{number} {'x' * 500}")
            for number in range(turns)
        )
    )


def assert_all_imported(client: Client, turns: int = 1_200, callers: int = 20) -> None:
    for number in (0, 7, turns // 10 - 1):
        events = client.with_identity(user=f"caller-{number % callers}").events(f"call-{number}")
        minutes = range(10 * number, 10 * number + 10)
        assert turn_ids_of(events) == [f"t{each}" for each in minutes]
        times = [event["occurredAt"] for event in events if event["type"] == "turn"]
        assert [parse_timestamp(each) for each in times] == [STARTED_AT + timedelta(minutes=each) for each in minutes]
    users = client.pages("/v1/voice-sdk/users", "users", limit=100)
    assert sum(user["sessionCount"] for user in users) == turns // 10
    sessions = [
        session
        for user in users
        for session in client.pages(f"/v1/voice-sdk/users/{user['userId']}/sessions", "sessions", limit=100)
    ]
    assert [session for session in sessions if session["turnCount"] != 10 or session["endedAt"] is None] == []


def acknowledged(state: Path) -> int:
    """Return the number of acknowledged batches in the state file."""
    return len(state.read_text().split()) if state.exists() else 0


def has_started(client: Client) -> bool:
    return bool(client.ok("GET", "/v1/voice-sdk/users")["users"])


@pytest.mark.parametrize("keeps_state", [True, False])
def test_after_a_kill_the_same_command_saves_each_turn_once_in_order(
    client: Client, new_file: NewFile, tmp_path: Path, keeps_state: bool
) -> None:
    file, state = long_file(new_file), tmp_path / "state.json"
    arguments = ("import", file, "--threads", "1", "--state", state)
    with Gate(client.url, max_requests=5) as gate:  # of twenty, one per user
        environ = {**cloud_environment(client), "MEMOAIR_BASE_URL": gate.url}
        with start_process(*arguments, home=tmp_path, **environ) as process:
            eventually(lambda: acknowledged(state) if keeps_state else has_started(client), within_s=30.0)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        if not keeps_state:
            state.unlink(missing_ok=True)
        gate.open()
        summary = json.loads(memoair(*arguments, "--json", **environ).out)

    assert summary["turns"]["refused"] == 0
    assert 0 < summary["turns"]["kept"] < 1_200, "the kill must come during the import"
    assert summary["turns"]["kept"] + summary["turns"]["alreadyThere"] == 1_200
    assert_all_imported(client)


def test_control_c_finishes_batches_in_flight_and_the_same_command_continues(
    client: Client, new_file: NewFile, tmp_path: Path
) -> None:
    file = long_file(new_file)
    state = tmp_path / "state.json"
    arguments = ("import", file, "--threads", "2", "--state", state)
    with Gate(client.url, max_requests=5) as gate:
        environ = {**cloud_environment(client), "MEMOAIR_BASE_URL": gate.url}
        with start_process(*arguments, home=tmp_path, **environ) as process:
            eventually(lambda: has_started(client), within_s=30.0)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            err = ""
            while "finishing the batches in flight" not in err:
                line = process.stderr.readline()
                assert line, err
                err += line
            gate.open()  # until now, two requests were in flight and could not arrive
            out, rest = process.communicate(timeout=60)
            err += rest
        assert acknowledged(state) > 0
        summary = json.loads(memoair(*arguments, "--json", **environ).out)
    assert process.returncode == 130, err
    assert "run the same command again to continue" in err
    assert "Traceback" not in err
    kept = int(out.split(" turns saved")[0].split(": ")[1].replace(",", ""))
    assert 0 < kept < 1_200
    assert summary["turns"] == {"kept": 1_200 - kept, "alreadyThere": kept, "refused": 0}
    assert_all_imported(client)


def test_a_second_run_sends_few_acknowledged_events_again(server: EventServer, new_file: NewFile) -> None:
    file = long_file(new_file, 2_000)
    run_import(file, **stand_in_environment(server))
    before = sum(len(batch.events) for batch in server.batches)
    run_import(file, **stand_in_environment(server))

    assert before == 2_000 + 2 * 200
    assert sum(len(batch.events) for batch in server.batches) - before == 120, "the last batch, of one user"


def test_a_longer_file_is_sent_from_where_it_grew(server: EventServer, new_file: NewFile) -> None:
    rows = [turn(number, f"caller-{number // 400}") for number in range(2_000)]
    run_import(new_file(*rows[:1_600]), **stand_in_environment(server))
    before = len(server.batches)
    summary = run_import(new_file(*rows), **stand_in_environment(server))

    assert summary["turns"] == {"kept": 400, "alreadyThere": 1_600, "refused": 0}
    assert len(server.batches) - before == 2
    assert len(server.turn_ids()) == 2_000


def test_a_target_that_lost_acknowledged_events_is_sent_everything(server: EventServer, new_file: NewFile) -> None:
    file = long_file(new_file, 2_000)
    run_import(file, **stand_in_environment(server))
    server.events_by_id.clear()
    done = memoair("import", file, "--json", **stand_in_environment(server))

    assert "the target has lost events that it acknowledged before" in done.err
    assert json.loads(done.out)["turns"]["refused"] == 0
    assert len(server.turn_ids()) == 2_000


def test_a_changed_file_is_read_from_the_start(server: EventServer, new_file: NewFile) -> None:
    run_import(new_file(turn(1), turn(2)), **stand_in_environment(server))
    summary = run_import(new_file(turn(1), turn(2), turn(3)), **stand_in_environment(server))

    assert summary["turns"] == {"kept": 1, "alreadyThere": 2, "refused": 0}
    assert server.turn_ids() == ["t1", "t2", "t3"]


OLD_STATE = '{"version": 1, "files": {"0123": {"acknowledged": 7, "refused": [[3, 2, "no"]]}}}'


@pytest.mark.parametrize("content", [b"", b"{", OLD_STATE.encode(), b"\xff\x00\n\n", b"0123456789abcdef\n0123"])
def test_a_damaged_state_file_and_one_of_an_earlier_release_are_ignored(
    server: EventServer, new_file: NewFile, tmp_path: Path, content: bytes
) -> None:
    state = tmp_path / "state"
    state.write_bytes(content)
    file = new_file(turn(1), turn(1, "bob"))
    summary = run_import(file, "--state", state, **stand_in_environment(server))
    again = run_import(file, "--state", state, **stand_in_environment(server))

    assert (summary["turns"]["kept"], again["turns"]["alreadyThere"]) == (2, 2)
    assert len(server.batches) == 2 + 1


def test_a_state_file_holds_a_limited_number_of_batches(
    server: EventServer, new_file: NewFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_cli.importing.state._MAX_BATCHES", 2)
    state = tmp_path / "state"
    for number in range(7):
        run_import(new_file(turn(number)), "--state", state, **stand_in_environment(server))

    assert 2 <= acknowledged(state) <= 5


def test_the_same_state_file_serves_two_targets(
    server: EventServer, client: Client, new_file: NewFile, tmp_path: Path
) -> None:
    file, state = new_file(turn(1), turn(1, "bob")), tmp_path / "state"
    project = client.identity["project"]
    run_import(file, "--state", state, **{**stand_in_environment(server), "MEMOAIR_PROJECT_ID": project})
    summary = run_import(file, "--state", state, **cloud_environment(client))

    assert summary["turns"]["kept"] == 2


def test_standard_input_is_sent_again_because_it_cannot_be_read_twice(server: EventServer) -> None:
    for _ in range(2):
        summary = run_import("-", stdin=json.dumps(turn(1)) + "\n", **stand_in_environment(server))

    assert summary["turns"] == {"kept": 0, "alreadyThere": 1, "refused": 0}
    assert len(server.batches) == 2


def test_an_unwritable_state_file_does_not_stop_the_import(
    server: EventServer, new_file: NewFile, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = memoair(
        "import", new_file(turn(1)), "--state", tmp_path / "file" / "state.json", **stand_in_environment(server)
    )

    assert "the progress cannot be saved" in done.err
    assert server.turn_ids() == ["t1"]


def test_the_state_file_is_private_and_contains_no_ids_texts_or_keys(
    server: EventServer, new_file: NewFile, home: Path
) -> None:
    run_import(new_file(turn(1), turn(1, "bob", turnId=5)), "--user", "cara", code=1, **stand_in_environment(server))
    [state] = home.rglob("imports/*.batches")

    assert state.stat().st_mode & 0o777 == 0o600
    assert not [word for word in ("ana", "bob", "cara", "Parcel", "secret") if word in state.read_text()]


# Parallel users


@pytest.fixture
def slow(server: EventServer) -> Iterator[EventServer]:
    """A stand-in that replies only when it has requests of four users at the same time."""
    together, answer = threading.Barrier(4), server.reply_to

    def wait(headers: dict[str, str], events: list[dict[str, Any]]) -> ScriptedReply:
        together.wait(60)
        return answer(headers, events)

    server.reply_to = wait  # type: ignore[method-assign]
    yield server
    together.abort()


def test_different_users_are_sent_at_once_and_each_in_order(slow: EventServer, new_file: NewFile) -> None:
    rows = [turn(number, f"caller-{caller}") for number in range(1_000) for caller in range(4)]
    run_import(new_file(*rows), "--threads", "4", **stand_in_environment(slow))

    for caller in range(4):
        batches = [each.events for each in slow.batches if each.headers["x-user-id"] == f"caller-{caller}"]
        assert len(batches) == 3  # a start, a thousand turns and an end, in batches of at most 500
        assert turn_ids_of([event for events in batches for event in events]) == [
            f"t{number}" for number in range(1_000)
        ]
