"""``memoair import`` into a cloud: what arrives, what is told, and what happens when it is run again."""

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
from cli.event_server import EventServer, Scripted, fault
from cli.gate import gate_before
from cli.imports import BEGAN, NewFile, identity, imported, into, turn, turns_of
from support.clouds import Client
from support.commands import MEMOAIR, environment, memoair, starting
from support.waiting import eventually

from memoair_voice_sync.transcripts import parse_moment

# What arrives


def test_calls_arrive_whole_with_their_times_and_each_turn_once(client: Client, new_file: NewFile) -> None:
    more = {"userName": "Ana", "assistantName": "Juno", "metadata": {"line": "returns"}}
    file = new_file(turn(1, **more), turn(1, "bob"), turn(2), turn(3), turn(2, "bob", userName="Bob"))
    summary = imported(file, **identity(client))

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
    minutes = [parse_moment(event["occurredAt"]) - BEGAN for event in events]
    assert minutes == [timedelta(minutes=number) for number in (1, 1, 2, 3, 3)]
    [session] = client.ok("GET", "/v1/voice-sdk/users/ana/sessions")["sessions"]
    assert (session["turnCount"], session["agentId"]) == (3, client.identity["agent"])
    assert parse_moment(session["endedAt"]) == BEGAN + timedelta(minutes=3)
    users = {user["userId"]: user["name"] for user in client.ok("GET", "/v1/voice-sdk/users")["users"]}
    assert users == {"ana": "Ana", "bob": "Bob"}

    again = imported(file, **identity(client))
    afresh = imported(file, "--anew", **identity(client))
    assert again["turns"] == afresh["turns"] == {"kept": 0, "alreadyThere": 5, "refused": 0}
    assert client.with_identity(user="ana").events("ana-1") == events


def test_a_text_from_standard_input_is_a_call(client: Client) -> None:
    given = "occurredAt: 2026-03-02T09:30:00Z\n\n[00:05] Juno: Hello.\n[00:10] Dana: It is late,\nmy parcel.\n"
    arguments = ("-", "--user", "ana", "--caller", "Dana", "--session", "call-9")
    summary = imported(*arguments, given=given, **identity(client))

    assert summary["turns"]["kept"] == 2
    events = [event for event in client.with_identity(user="ana").events("call-9") if event["type"] == "turn"]
    said = [(event["payload"]["userText"], event["payload"]["assistantText"]) for event in events]
    assert said == [("", "Hello."), ("It is late, my parcel.", "")]
    assert [event["occurredAt"][14:19] for event in events] == ["30:05", "30:10"]
    assert client.ok("GET", "/v1/voice-sdk/users")["users"][0]["name"] == "Dana"


def test_half_of_a_file_twice_and_then_all_of_it_keeps_each_turn_once_in_order(
    client: Client, new_file: NewFile
) -> None:
    rows = [{**turn(number), "turnId": None} for number in range(20)]
    for row in rows[5:]:
        del row["occurredAt"]  # half of them without a time, and none with an id
    half = new_file(*rows[:12], name="half.jsonl")
    for file in (half, half, new_file(*rows)):
        imported(file, "--anew", **identity(client))

    events = client.with_identity(user="ana").events("ana-1")
    texts = [event["payload"]["userText"] for event in events if event["type"] == "turn"]
    assert texts == [row["userText"] for row in rows]
    assert events[-1]["type"] == "session_end"


def test_a_call_that_two_files_tell_of_is_in_order_whichever_comes_first(client: Client, new_file: NewFile) -> None:
    late = new_file(*(turn(number) for number in range(5, 9)), name="late.jsonl")
    early = new_file(*(turn(number) for number in range(5)), name="early.jsonl")
    for file in (late, early):
        imported(file, **identity(client))

    events = client.with_identity(user="ana").events("ana-1")
    assert turns_of(events) == [f"t{number}" for number in range(9)]
    assert (events[0]["type"], events[-1]["type"]) == ("session_start", "session_end")


def test_many_calls_at_once_in_one_file_are_each_in_order(client: Client, new_file: NewFile) -> None:
    calls = [f"call-{number}" for number in range(150)]  # more than are taken as open at first
    file = new_file(*(turn(number, "ana", call) for number in range(3) for call in calls))
    summary = imported(file, **identity(client))

    assert (summary["sessions"], summary["turns"]["kept"]) == (150, 450)
    for call in (calls[0], calls[77], calls[-1]):
        events = client.with_identity(user="ana").events(call)
        assert turns_of(events) == ["t0", "t1", "t2"]
        assert (events[0]["type"], events[-1]["type"]) == ("session_start", "session_end")


VTT = "00:00:0{0}.000 --> 00:00:0{0}.900\n<v {1}>{2}\n"
SRT = "{0}\n00:00:0{0},000 --> 00:00:0{0},900\n{1}: {2}\n"
SAID = [(1, "Agent", "Hello."), (4, "Caller", "My parcel is late."), (6, "Agent", "I see.")]
BEGAN_MS = int(BEGAN.timestamp() * 1_000)
HEARD = {
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
            "startedAt": BEGAN.isoformat(),
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


@pytest.mark.parametrize("format_", HEARD)
def test_a_call_of_any_format_arrives_with_its_times_once_however_often_and_whatever_is_refused(
    client: Client, tmp_path: Path, format_: str
) -> None:
    file = tmp_path / f"call.{format_}"
    file.write_text(HEARD[format_])
    labels = ("--caller", "6", "--assistant", "5") if "twilio" in format_ else ()
    options = ("--user", "ana", "--session", "call-9", "--occurred-at", BEGAN.isoformat(), *labels)
    summary = imported(file, *options, **identity(client))
    again = imported(file, *options, **identity(client))
    afresh = imported(file, "--anew", *options, **identity(client))

    assert (summary["sessions"], summary["turns"]) == (1, {"kept": 2, "alreadyThere": 0, "refused": 0})
    assert again["turns"] == afresh["turns"] == {"kept": 0, "alreadyThere": 2, "refused": 0}
    events = client.with_identity(user="ana").events("call-9")
    turns = [event for event in events if event["type"] == "turn"]
    assert [event["type"] for event in events] == ["session_start", "turn", "turn", "session_end"]
    said = [(turn["payload"]["userText"], turn["payload"]["assistantText"]) for turn in turns]
    assert said == [("", "Hello."), ("My parcel is late.", "I see.")]
    assert [parse_moment(turn["occurredAt"]) - BEGAN for turn in turns] == [timedelta(seconds=at) for at in (1, 4)]

    longer = {
        "vtt": VTT.format(7, "Caller", "Bye.") + "\n" + VTT.format(8, "Ghost", "Boo."),
        "srt": SRT.format(7, "Caller", "Bye.") + "\n" + SRT.format(8, "Ghost", "Boo."),
    }.get(format_)
    if longer is not None:  # the same call, as a later export tells it
        file.write_text(f"{HEARD[format_]}\n{longer}")
        more = imported(file, *options, code=1, **identity(client))
        assert more["turns"] == {"kept": 1, "alreadyThere": 2, "refused": 1}
        assert len(client.with_identity(user="ana").events("call-9")) == 6  # and another end


def test_a_caller_s_id_may_be_any_text(client: Client, new_file: NewFile) -> None:
    user = "+49 30/1234 Zoë 🙂"
    imported(new_file(turn(1, user, "call-1")), **identity(client))

    assert [each["userId"] for each in client.ok("GET", "/v1/voice-sdk/users")["users"]] == [user]


# What is refused


def test_what_is_refused_is_told_by_file_and_line_and_the_rest_is_kept(
    client: Client, new_file: NewFile, tmp_path: Path
) -> None:
    file = new_file(turn(1), b"\xff", '{"secret', turn(2, userText=3), turn(3), turn(4, "bob", "x" * 600))
    done = memoair("import", file, "--refused", tmp_path / "refused.jsonl", code=1, **identity(client))

    assert "1 file, 1 call: 2 turns kept, 0 already there, 4 refused" in done.out
    assert f"{file}:3: not JSON; one object on each line is wanted" in done.out
    told = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [each["line"] for each in told] == [2, 3, 4, 6]
    assert {each["file"] for each in told} == {str(file)}
    assert "secret" not in done.out + done.err
    assert turns_of(client.with_identity(user="ana").events("ana-1")) == ["t1", "t3"]


def test_what_the_cloud_refuses_is_told_by_its_line_also_in_the_next_run(
    server: EventServer, new_file: NewFile
) -> None:
    server.refuses = lambda event: "it was forgotten" if event["payload"].get("turnId") == "t2" else None
    file = new_file(*(turn(number) for number in range(4)))
    first = imported(file, code=1, **into(server))
    second = imported(file, code=1, **into(server))

    assert first["turns"] == {"kept": 3, "alreadyThere": 0, "refused": 1}
    assert second["turns"] == {"kept": 0, "alreadyThere": 3, "refused": 1}
    assert (
        first["refused"]
        == second["refused"]
        == [{"file": str(file), "line": 3, "reason": "cloud.invalid: it was forgotten"}]
    )


def test_a_call_that_is_refused_as_a_whole_is_told_line_by_line_and_not_event_by_event(
    server: EventServer, new_file: NewFile
) -> None:
    server.refuses = lambda event: "forgotten" if event["seq"] else None
    summary = imported(new_file(turn(1), turn(2), turn(3)), code=1, **into(server))

    assert summary["turns"] == {"kept": 0, "alreadyThere": 0, "refused": 3}
    assert [each["line"] for each in summary["refused"]] == [1, 2, 3]


def test_what_was_refused_long_before_the_place_where_a_second_run_goes_on_is_counted_once(
    server: EventServer, new_file: NewFile
) -> None:
    server.refuses = lambda event: "forgotten" if event["payload"].get("turnId") == "t5" else None
    file = new_file(*(turn(number) for number in range(1_000)))
    assert imported(file, code=1, **into(server))["turns"] == {"kept": 999, "alreadyThere": 0, "refused": 1}
    again = imported(file, code=1, **into(server))

    assert again["turns"] == {"kept": 0, "alreadyThere": 999, "refused": 1}
    assert [each["line"] for each in again["refused"]] == [6]


def test_a_file_whose_name_is_not_unicode_is_imported_and_told(client: Client, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))
    file.write_text(json.dumps(turn(1)) + "\nsecret\n")
    for more in ([], ["--json"]):
        done = memoair("import", file, "--refused", tmp_path / "refused", *more, code=1, **identity(client))
        assert "\N{REPLACEMENT CHARACTER}.jsonl" in done.out


def test_only_the_first_refusals_are_shown(client: Client, new_file: NewFile) -> None:
    done = memoair("import", new_file(*["x"] * 100), code=1, **identity(client))

    assert done.out.count(": not JSON") == 20
    assert "... and 80 more; --refused FILE writes them all" in done.out


def test_quiet_says_nothing_unless_something_is_wrong(client: Client, new_file: NewFile) -> None:
    assert memoair("import", new_file(turn(1)), "--quiet", **identity(client))[1:] == ("", "")
    wrong = memoair("import", new_file(turn(1), "x"), "--quiet", code=1, **identity(client))
    assert wrong.out == ""
    assert "calls.jsonl:2: not JSON" in wrong.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["."], ". is a folder; name the files in it"),
        (["-", "-"], "standard input can be read once"),
        (["-", "--occurred-at", "today"], "--occurred-at must be an ISO 8601 moment"),
        (["-", "--format", "otter"], "--format can be jsonl, text, webvtt, srt, twilio, vapi, retell"),
        (["-", "--user", " ana"], "user_id begins or ends with white space"),
        (["-", "--refused", "/nowhere/refused.jsonl"], "/nowhere/refused.jsonl can't be written"),
        (["-", "--threads", "0"], "--threads"),
        ([], "FILE"),
    ],
)
def test_options_that_can_not_be_are_told_before_anything_is_sent(
    server: EventServer, arguments: list[str], message: str
) -> None:
    done = memoair("import", *arguments, code=2, given="", **into(server))

    assert message in done.err
    assert not server.asked


@pytest.mark.parametrize("name", ["MEMOAIR_API_KEY", "MEMOAIR_PROJECT_ID"])
def test_an_identity_that_is_not_set_is_told(server: EventServer, name: str) -> None:
    told = {**into(server)}
    del told[name]
    assert memoair("import", "-", code=2, given="", **told).err == f"{name} is not set\n"


# A target that fails


def test_a_key_that_the_cloud_does_not_know_ends_it_at_once(client: Client, new_file: NewFile) -> None:
    done = memoair("import", new_file(turn(1)), code=3, **{**identity(client), "MEMOAIR_API_KEY": "memoair_pk_other"})

    assert "refuses: cloud.unauthorized" in done.err
    assert "MEMOAIR_API_KEY" in done.err
    assert "memoair_pk_other" not in done.out + done.err


def test_a_project_that_is_not_there_ends_it_at_once(client: Client, new_file: NewFile) -> None:
    done = memoair("import", new_file(turn(1)), code=3, **{**identity(client), "MEMOAIR_PROJECT_ID": "proj_other"})

    assert "refuses: cloud.not_found: unknown project" in done.err
    assert "the same command goes on from here" in done.err


def test_what_is_no_cloud_is_told(server: EventServer, new_file: NewFile) -> None:
    for said, message in (
        (Scripted(200, ["hello"]), "what answers is no MemoAir cloud"),
        (Scripted(200, {"hello": 1}), "what answers is no MemoAir cloud"),
        (Scripted(200, {"accepted": [], "duplicate": [], "rejected": []}), "does not say what became of all events"),
        (Scripted(301, None, {"Location": "https://else"}), "it redirects (301)"),
    ):
        server.script.append(said)
        assert message in memoair("import", new_file(turn(1)), code=3, **into(server)).err


def test_nobody_who_answers_is_told_when_patience_ends(new_file: NewFile) -> None:
    nobody = {**into(EventServer("http://127.0.0.1:9")), "MEMOAIR_BASE_URL": "http://user:word@127.0.0.1:9"}
    done = memoair("import", new_file(turn(1)), "--patience", "0.1", code=3, **nobody)

    assert "the cloud at http://127.0.0.1:9 can't be reached: nothing listens there" in done.err


def test_a_cloud_in_trouble_is_tried_again_until_it_takes_everything(server: EventServer, new_file: NewFile) -> None:
    server.script.extend([fault(503, "cloud.unavailable"), Scripted(0)])
    summary = imported(new_file(*(turn(number) for number in range(3))), "--threads", "1", **into(server))

    assert summary["turns"]["kept"] == 3
    assert server.turns() == ["t0", "t1", "t2"]
    assert len(server.asked) == 3


def test_a_cloud_that_asks_to_be_left_alone_is(server: EventServer, new_file: NewFile) -> None:
    server.script.append(fault(429, "cloud.rate_limited", retryAfterS=1))
    summary = imported(new_file(turn(1)), **into(server))

    assert summary["turns"]["kept"] == 1
    assert server.asked[1].at - server.asked[0].at >= 1


def test_a_cloud_that_wants_to_be_left_alone_for_longer_than_anybody_waits_fails(
    server: EventServer, new_file: NewFile
) -> None:
    server.script.append(fault(429, "cloud.rate_limited", retryAfterS=86_400))
    done = memoair("import", new_file(turn(1)), "--patience", "5", code=3, **into(server))

    assert "takes nothing: cloud.rate_limited" in done.err


def test_a_batch_that_is_too_large_for_what_stands_before_the_cloud_is_halved(
    server: EventServer, new_file: NewFile
) -> None:
    server.most_events = 7
    summary = imported(new_file(*(turn(number) for number in range(60))), **into(server))

    assert summary["turns"]["kept"] == 60
    assert server.turns() == [f"t{number}" for number in range(60)]


def test_an_event_that_spoils_its_batch_is_found_and_refused_alone(server: EventServer, new_file: NewFile) -> None:
    answer = server.answer

    def strict(headers: dict[str, str], events: list[dict[str, Any]]) -> Scripted:
        spoilt = any(event["payload"].get("turnId") == "t5" for event in events)
        return fault(422, "cloud.invalid", "not JSON") if spoilt else answer(headers, events)

    server.answer = strict  # type: ignore[method-assign]
    summary = imported(new_file(*(turn(number) for number in range(9))), code=1, **into(server))

    assert summary["turns"] == {"kept": 8, "alreadyThere": 0, "refused": 1}
    assert [each["line"] for each in summary["refused"]] == [6]


def test_who_asks_and_for_whom_stands_in_the_headers(server: EventServer, new_file: NewFile) -> None:
    imported(new_file(turn(1, "Zoë")), "--agent", "agent_7", **into(server))

    [asked] = server.asked
    wanted = {"authorization": "Bearer memoair_pk_secret", "x-project-id": "proj_acme", "x-agent-id": "agent_7"}
    assert wanted.items() <= asked.headers.items()
    assert asked.headers["x-user-id"] == "Zoë"


def test_on_a_terminal_a_bar_tells_how_far_it_is(server: EventServer, new_file: NewFile, tmp_path: Path) -> None:
    answer, is_shown = server.answer, threading.Event()

    def held(headers: dict[str, str], events: list[dict[str, Any]]) -> Scripted:
        if headers["x-user-id"] != "user-0":
            is_shown.wait(60)  # else all may be over before the bar is drawn again
        return answer(headers, events)

    terminal, its_end = pty.openpty()
    command = [*MEMOAIR, "import", str(new_file(*(turn(number, f"user-{number}") for number in range(12)), "x"))]
    environ = environment(tmp_path, TERM="xterm", **into(server))
    imported(new_file(turn(0, "user-0"), name="before.jsonl"), **into(server))
    server.answer = held  # type: ignore[method-assign]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=its_end, text=True) as process:
        os.close(its_end)
        shown = b""
        with suppress(OSError):  # that is how Linux tells the end of a terminal
            while block := os.read(terminal, 4_096):
                shown += block
                if b"1 already there" in shown and b"1 refused" in shown:
                    is_shown.set()
        os.close(terminal)
        assert process.stdout is not None
        assert "11 turns kept, 1 already there" in process.stdout.read()
    assert "into proj_acme" in shown.decode()
    assert "1 already there" in shown.decode()
    assert "1 refused" in shown.decode()
    assert "user-" not in shown.decode()


# Stopped, and run again


def long_file(new_file: NewFile, turns: int = 1_200, callers: int = 20) -> Path:
    return new_file(
        *(
            turn(number, f"caller-{number // 10 % callers}", f"call-{number // 10}", userText=f"{number} {'x' * 500}")
            for number in range(turns)
        )
    )


def check_all_there(client: Client, turns: int = 1_200, callers: int = 20) -> None:
    for number in (0, 7, turns // 10 - 1):
        events = client.with_identity(user=f"caller-{number % callers}").events(f"call-{number}")
        wanted = range(10 * number, 10 * number + 10)
        assert turns_of(events) == [f"t{each}" for each in wanted]
        times = [event["occurredAt"] for event in events if event["type"] == "turn"]
        assert [parse_moment(each) for each in times] == [BEGAN + timedelta(minutes=each) for each in wanted]
    users = client.pages("/v1/voice-sdk/users", "users", limit=100)
    assert sum(user["sessionCount"] for user in users) == turns // 10
    sessions = [
        session
        for user in users
        for session in client.pages(f"/v1/voice-sdk/users/{user['userId']}/sessions", "sessions", limit=100)
    ]
    assert [session for session in sessions if session["turnCount"] != 10 or session["endedAt"] is None] == []


def acknowledged(state: Path) -> int:
    """How many events the state says are acknowledged."""
    try:
        return sum(file["acknowledged"] for file in json.loads(state.read_text())["files"].values())
    except FileNotFoundError:
        return 0


def has_begun(client: Client) -> bool:
    return bool(client.ok("GET", "/v1/voice-sdk/users")["users"])


@pytest.mark.parametrize("keeps_state", [True, False])
def test_after_a_kill_in_the_middle_the_same_command_keeps_each_turn_once_in_order(
    client: Client, new_file: NewFile, tmp_path: Path, keeps_state: bool
) -> None:
    file, state = long_file(new_file), tmp_path / "state.json"
    arguments = ("import", file, "--threads", "1", "--state", state)
    with gate_before(client.url, most=5) as gate:  # of twenty requests, one for each caller
        told = {**identity(client), "MEMOAIR_BASE_URL": gate.url}
        with starting(*arguments, home=tmp_path, **told) as process:
            eventually(lambda: acknowledged(state) if keeps_state else has_begun(client), within_s=30.0)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        if not keeps_state:
            state.unlink(missing_ok=True)
        gate.open()
        summary = json.loads(memoair(*arguments, "--json", **told).out)

    assert summary["turns"]["refused"] == 0
    assert 0 < summary["turns"]["kept"] < 1_200, "it was killed neither before it began nor when it had ended"
    assert summary["turns"]["kept"] + summary["turns"]["alreadyThere"] == 1_200
    check_all_there(client)


def test_control_c_ends_what_is_on_its_way_and_the_same_command_goes_on(
    client: Client, new_file: NewFile, tmp_path: Path
) -> None:
    file = long_file(new_file)
    state = tmp_path / "state.json"
    arguments = ("import", file, "--threads", "2", "--state", state)
    with gate_before(client.url, most=5) as gate:
        told = {**identity(client), "MEMOAIR_BASE_URL": gate.url}
        with starting(*arguments, home=tmp_path, **told) as process:
            eventually(lambda: has_begun(client), within_s=30.0)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            err = ""
            while "ending what is on its way" not in err:
                line = process.stderr.readline()
                assert line, err
                err += line
            gate.open()  # before, two of its requests were on their way and could not arrive
            out, rest = process.communicate(timeout=60)
            err += rest
        assert acknowledged(state) > 0
        summary = json.loads(memoair(*arguments, "--json", **told).out)
    assert process.returncode == 130, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    kept = int(out.split(" turns kept")[0].split(": ")[1].replace(",", ""))
    assert 0 < kept < 1_200
    assert summary["turns"] == {"kept": 1_200 - kept, "alreadyThere": kept, "refused": 0}
    check_all_there(client)


def test_a_second_run_sends_little_of_what_the_first_had_acknowledged(server: EventServer, new_file: NewFile) -> None:
    file = long_file(new_file, 2_000)
    imported(file, **into(server))
    before = sum(len(asked.events) for asked in server.asked)
    imported(file, **into(server))

    assert before == 2_000 + 2 * 200
    assert sum(len(asked.events) for asked in server.asked) - before == 500


def test_a_target_that_has_lost_what_the_state_says_it_has_gets_everything(
    server: EventServer, new_file: NewFile
) -> None:
    file = long_file(new_file, 2_000)
    imported(file, **into(server))
    server.kept.clear()
    done = memoair("import", file, "--json", **into(server))

    assert "the target has lost what the state says it has" in done.err
    assert json.loads(done.out)["turns"]["refused"] == 0
    assert len(server.turns()) == 2_000


def test_a_file_that_has_changed_is_read_anew(server: EventServer, new_file: NewFile) -> None:
    imported(new_file(turn(1), turn(2)), **into(server))
    summary = imported(new_file(turn(1), turn(2), turn(3)), **into(server))

    assert summary["turns"] == {"kept": 1, "alreadyThere": 2, "refused": 0}
    assert server.turns() == ["t1", "t2", "t3"]


@pytest.mark.parametrize(
    "content", ["", "{", '{"version": 1, "files": {"x": 1}}', "[1]", '{"version": 99, "files": {}}']
)
def test_a_damaged_state_file_is_as_good_as_none(
    server: EventServer, new_file: NewFile, tmp_path: Path, content: str
) -> None:
    state = tmp_path / "state.json"
    state.write_text(content)
    summary = imported(new_file(turn(1)), "--state", state, **into(server))

    assert summary["turns"]["kept"] == 1
    assert json.loads(state.read_text())["version"] == 1


def test_a_state_file_that_can_not_be_written_stops_nothing(
    server: EventServer, new_file: NewFile, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = memoair("import", new_file(turn(1)), "--state", tmp_path / "file" / "state.json", **into(server))

    assert "the state can't be written" in done.err
    assert server.turns() == ["t1"]


def test_the_state_holds_neither_ids_of_callers_nor_words_nor_keys_and_is_for_its_owner_only(
    server: EventServer, new_file: NewFile, home: Path
) -> None:
    imported(new_file(turn(1), turn(1, "bob", turnId=5)), "--user", "cara", code=1, **into(server))
    [state] = home.rglob("imports/*.json")

    assert state.stat().st_mode & 0o777 == 0o600
    assert not [word for word in ("ana", "bob", "cara", "Parcel", "secret") if word in state.read_text()]


# Different callers at once, one caller in order


@pytest.fixture
def slow(server: EventServer) -> Iterator[EventServer]:
    """A stand-in that answers nobody until four callers ask at the same time."""
    together, answer = threading.Barrier(4), server.answer

    def wait(headers: dict[str, str], events: list[dict[str, Any]]) -> Scripted:
        together.wait(60)
        return answer(headers, events)

    server.answer = wait  # type: ignore[method-assign]
    yield server
    together.abort()


def test_different_callers_go_at_once_and_each_in_order(slow: EventServer, new_file: NewFile) -> None:
    rows = [turn(number, f"caller-{caller}") for number in range(1_000) for caller in range(4)]
    imported(new_file(*rows), "--threads", "4", **into(slow))

    for caller in range(4):
        asked = [each.events for each in slow.asked if each.headers["x-user-id"] == f"caller-{caller}"]
        assert len(asked) == 3  # a start, a thousand turns and an end, in batches of at most 500
        assert turns_of([event for events in asked for event in events]) == [f"t{number}" for number in range(1_000)]
