"""Ingestion: events are saved once, in any order, and invalid ones are rejected alone."""

import gzip
import itertools
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.clouds import OCCURRED_AT, Client, session_end, session_start, turn

PATH = "/v1/voice-sdk/events"


def make_call(session_id: str = "call-1", turns: int = 6) -> list[dict[str, Any]]:
    middle = [
        turn(
            f"{session_id}-{seq}",
            session_id,
            seq,
            f"turn {seq}",
            occurredAt=f"2026-03-02T09:{30 + seq // 60}:{seq % 60:02}Z",
        )
        for seq in range(2, turns + 2)
    ]
    start = session_start(f"{session_id}-1", session_id, occurredAt="2026-03-02T09:30:01Z")
    end = session_end(f"{session_id}-end", session_id, turns + 2, occurredAt="2026-03-02T09:45:00Z")
    return [start, *middle, end]


def list_users_with_sessions(client: Client) -> Any:
    users = client.ok("GET", "/v1/voice-sdk/users")["users"]
    return [(user, client.ok("GET", f"/v1/voice-sdk/users/{user['userId']}/sessions")["sessions"]) for user in users]


@pytest.mark.parametrize("compressed", [False, True])
def test_an_ingested_call_can_be_read(client: Client, compressed: bool) -> None:
    call = make_call()
    receipt = client.send(*call, compressed=compressed)

    assert receipt == {
        "accepted": [event["eventId"] for event in call],
        "duplicate": [],
        "expired": [],
        "rejected": [],
    }
    keys = ("eventId", "type", "seq", "occurredAt", "payload")
    assert client.events("call-1") == [{key: event[key] for key in keys} for event in call]
    ((user, (session,)),) = list_users_with_sessions(client)
    assert user == {
        "userId": "0xab12",
        "name": "Ana",
        "metadata": {"tenant": "acme"},
        "sessionCount": 1,
        "firstSeenAt": user["firstSeenAt"],
        "lastSeenAt": "2026-03-02T09:45:00Z",
    }
    assert session == {
        "sessionId": "call-1",
        "userId": "0xab12",
        "startedAt": "2026-03-02T09:30:01Z",
        "endedAt": "2026-03-02T09:45:00Z",
        "turnCount": 6,
        "agentId": client.identity["agent"],
        "promptVersion": None,
        "metadata": {"line": "returns"},
    }


def test_events_are_saved_once_in_any_order_repetition_and_batching(client: Client) -> None:
    calls = [event for number in range(3) for event in make_call(f"call-{number}")]
    orderly = client.with_identity(user="orderly")
    orderly.send(*calls)
    dice = random.Random(7)

    for round_ in range(4):
        sent = [*calls, *dice.sample(calls, 5)]
        dice.shuffle(sent)
        cuts = sorted(dice.sample(range(len(sent)), 4))
        receipts = [client.send(*sent[a:b]) for a, b in itertools.pairwise([0, *cuts, len(sent)])]
        accepted = sorted(itertools.chain(*(receipt["accepted"] for receipt in receipts)))
        assert accepted == (sorted(event["eventId"] for event in calls) if round_ == 0 else [])
        assert sum(len(receipt["duplicate"]) for receipt in receipts) == len(sent) - len(accepted)
        assert not any(receipt["rejected"] for receipt in receipts)

    for number in range(3):
        assert client.events(f"call-{number}") == orderly.events(f"call-{number}")
    (first, sessions), (second, orderly_sessions) = list_users_with_sessions(client)
    assert {**first, "userId": ""} == {**second, "userId": ""}
    assert sessions == [{**session, "userId": "0xab12"} for session in orderly_sessions]


def test_concurrent_writers_save_each_event_once(client: Client) -> None:
    call = make_call(turns=60)
    halves = [call[:40], call[20:], call[10:50], call] * 2
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda half: client.send(*half), halves))

    accepted = [event_id for receipt in receipts for event_id in receipt["accepted"]]
    assert sorted(accepted) == sorted(event["eventId"] for event in call)
    ((user, (session,)),) = list_users_with_sessions(client)
    assert (user["sessionCount"], session["turnCount"]) == (1, 60)
    assert [event["seq"] for event in client.events("call-1")] == list(range(1, 63))


INVALID_EVENTS: dict[str, Any] = {
    "not an object": "hello",
    "no id": {key: value for key, value in turn("x").items() if key != "eventId"},
    "an id with control characters": turn("a\x00b"),
    "an id too long": turn("x" * 513),
    "an unknown type": turn("x", type="lunch"),
    "a negative seq": turn("x", seq=-1),
    "a seq that is a string": {**turn("x"), "seq": "2"},
    "a seq beyond integers": {**turn("x"), "seq": 2**70},
    "no timestamp": turn("x", occurredAt="yesterday"),
    "a timestamp as a number": turn("x", occurredAt=1_772_443_800),
    "a timestamp before the calendar": turn("x", occurredAt="0001-01-01T00:00:00+14:00"),
    "a payload that is a list": turn("x", payload=[]),
    "a turn without texts": turn("x", payload={"turnId": "t"}),
    "a text that is a number": turn("x", payload={"turnId": "t", "userText": 5, "assistantText": ""}),
    "a start for another user": session_start("x", payload={"user": {"id": "another"}}),
    "a start whose user is a string": session_start("x", payload={"user": "Ana"}),
    "an id that begins with a space": turn(" x"),
    "an id that is a dot segment": turn(".."),
    "more than a runtime accepts": turn("x", said="x" * 1_200_000),
    "nested too deeply": turn("x", payload={**turn("x")["payload"], "deep": json.loads("[" * 90 + "]" * 90)}),
}


@pytest.mark.parametrize("invalid", INVALID_EVENTS.values(), ids=INVALID_EVENTS.keys())
def test_an_invalid_event_is_rejected_alone_with_a_reason(client: Client, invalid: Any) -> None:
    receipt = client.send(turn("before", seq=1), invalid, turn("after", seq=3))

    assert receipt["accepted"] == ["before", "after"]
    (rejection,) = receipt["rejected"]
    assert rejection["eventId"] == (invalid.get("eventId") if isinstance(invalid, dict) else None)
    assert rejection["code"] == "cloud.invalid"
    assert rejection["message"]
    assert [event["eventId"] for event in client.events("call-1")] == ["before", "after"]


def test_an_event_id_of_another_session_is_rejected_and_is_no_duplicate(client: Client) -> None:
    client.send(turn("one", "call-1"))

    for batch in ([turn("one", "call-2")], [turn("two", "call-1"), turn("two", "call-2")]):
        (rejection,) = client.send(*batch)["rejected"]
        assert rejection["code"] == "cloud.conflict"
    assert client.with_identity(user="another").send(turn("one", "call-1"))["accepted"] == ["one"]


def test_payloads_come_back_exactly_as_they_were_sent(client: Client) -> None:
    said = 'Ünïcödé \x00 \u2028 😀 "quoted" \\ </script> ' + "long " * 5_000
    payload = {**turn("x")["payload"], "userText": said, "toolCalls": [{"n": 12345678901234567, "x": [None, 1.5]}]}
    client.send(turn("x", payload=payload))

    assert client.events("call-1")[0]["payload"] == payload


def test_a_name_with_a_nul_character_is_sanitized(client: Client) -> None:
    client.send(session_start("x", name="A\x00na"))

    assert client.ok("GET", "/v1/voice-sdk/users")["users"][0]["name"] == "A\ufffdna"


def test_a_restarted_session_is_open_again(client: Client) -> None:
    client.send(session_end("end", seq=5))
    client.send(session_start("again", seq=6))
    client.send(session_start("start", seq=1, payload={"metadata": {"line": "old"}}))

    ((_, (session,)),) = list_users_with_sessions(client)
    assert session["endedAt"] is None
    assert session["metadata"] == {"line": "returns"}


def test_the_latest_session_start_names_the_user(client: Client) -> None:
    client.send(session_start("b", "call-b", name="Ana B.", occurredAt="2026-03-05T09:00:00Z"))
    client.send(session_start("a", "call-a", name="Ana A.", occurredAt="2026-03-01T09:00:00Z"))
    client.send(session_start("c", "call-c", occurredAt="2026-03-07T09:00:00Z", payload={}))

    (user,) = client.ok("GET", "/v1/voice-sdk/users")["users"]
    assert (user["name"], user["sessionCount"], user["lastSeenAt"]) == ("Ana B.", 3, "2026-03-07T09:00:00Z")


def test_timestamps_are_converted_to_utc(client: Client) -> None:
    client.send(
        turn("a", seq=1, occurredAt="2026-03-02T09:30:00"), turn("b", seq=2, occurredAt="2026-03-02T09:30+02:00")
    )

    assert [event["occurredAt"] for event in client.events("call-1")] == [OCCURRED_AT, "2026-03-02T07:30:00Z"]


def test_users_and_sessions_are_paginated(client: Client) -> None:
    for number in range(5):
        client.with_identity(user=f"caller {number}/ß").send(turn("x", occurredAt=f"2026-03-0{number + 1}T09:00:00Z"))
    for number in range(5):
        client.send(turn(f"x{number}", f"call/{number}", occurredAt=f"2026-03-0{number + 1}T09:00:00Z"))

    users = client.pages("/v1/voice-sdk/users", "users", limit=2)
    assert sorted(user["userId"] for user in users) == ["0xab12", *(f"caller {number}/ß" for number in range(5))]
    sessions = client.pages("/v1/voice-sdk/users/0xab12/sessions", "sessions", limit=2)
    assert [session["sessionId"] for session in sessions] == [f"call/{number}" for number in (4, 3, 2, 1, 0)]
    assert len(client.ok("GET", "/v1/voice-sdk/users/caller%203%2F%C3%9F/sessions")["sessions"]) == 1
    assert [event["eventId"] for event in client.events("call/3")] == ["x3"]
    assert client.ok("GET", "/v1/voice-sdk/sessions/call%2F3")["turnCount"] == 1


def test_the_sessions_of_a_project_are_paginated_latest_first_and_limited_to_a_period(client: Client) -> None:
    days = [4, 2, 4, 1, 3]
    for number, day in enumerate(days):
        caller = client.with_identity(**{**client.identity, "user": f"caller {number % 2}"})
        caller.send(session_start(f"x{number}", f"call-{number}", occurredAt=f"2026-03-0{day}T09:00:00Z"))
    everybody = Client(client.url, client.key, project=client.identity["project"])

    path = "/v1/voice-sdk/sessions"
    sessions = everybody.pages(path, "sessions", limit=2)
    assert [session["startedAt"][9] for session in sessions] == ["4", "4", "3", "2", "1"]
    assert {session["sessionId"] for session in sessions} == {f"call-{number}" for number in range(5)}
    period = everybody.ok("GET", f"{path}?since=2026-03-02T10:00:00%2B01:00&until=2026-03-04T09:00:00Z")["sessions"]
    assert [session["sessionId"] for session in period] == ["call-4", "call-1"]
    agent = client.identity["agent"]
    assert len(everybody.ok("GET", f"{path}?agentId={agent}")["sessions"]) == 5
    assert everybody.ok("GET", f"{path}?agentId=another")["sessions"] == []
    one = everybody.with_identity(**everybody.identity, user="caller 1")
    assert {session["userId"] for session in one.ok("GET", path)["sessions"]} == {"caller 1"}


@pytest.mark.parametrize("query", ["since=soon", "until=9999-12-31T23:59:59-14:00", "agentId=%20", "since="])
def test_an_invalid_period_or_agent_is_rejected(client: Client, query: str) -> None:
    assert client.error_of("GET", f"/v1/voice-sdk/sessions?{query}") == (422, "cloud.invalid")


@pytest.mark.parametrize("cursor", ["x", "!!", "W10", "WzFd", "WyJhXHUwMDAwIl0", "bnVsbA", "%00", "W1tbW1tbXQ"])
def test_an_invalid_cursor_is_rejected(client: Client, cursor: str) -> None:
    assert client.error_of("GET", f"/v1/voice-sdk/users?cursor={cursor}") == (422, "cloud.invalid")


def test_the_user_header_selects_one_of_two_sessions_with_the_same_id(client: Client) -> None:
    other = client.with_identity(user="0xcd34")
    client.send(turn("mine"))
    other.send(turn("theirs"))
    without_user = Client(client.url, client.key, project=client.identity["project"])

    assert [event["eventId"] for event in client.events("call-1")] == ["mine"]
    assert [event["eventId"] for event in other.events("call-1")] == ["theirs"]
    assert without_user.error_of("GET", "/v1/voice-sdk/sessions/call-1/events") == (409, "cloud.conflict")


def test_a_batch_over_the_limit_is_rejected_as_a_whole(client: Client) -> None:
    batch = [turn(f"{number}", seq=number) for number in range(501)]

    assert client.error_of("POST", PATH, {"events": batch}) == (413, "cloud.batch_too_large")
    assert client.ok("GET", "/v1/voice-sdk/users")["users"] == []
    assert len(client.send(*batch[:500])["accepted"]) == 500


def test_a_decompression_bomb_is_rejected(client: Client) -> None:
    bomb = gzip.compress(b"[" + b" " * (64 << 20) + b"]")

    assert len(bomb) < 1 << 20
    assert client.error_of("POST", PATH, bomb, Content_Encoding="gzip") == (413, "cloud.batch_too_large")


INVALID_BODIES = {
    "invalid JSON": b"{",
    "not an object": b"[]",
    "empty": b"",
    "not a number": b'{"events": [NaN]}',
    "no events": b"{}",
    "events that are an object": b'{"events": {}}',
    "nested too deeply": b'{"events": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("body", INVALID_BODIES.values(), ids=INVALID_BODIES.keys())
def test_a_body_that_is_not_a_batch_is_rejected(client: Client, body: bytes) -> None:
    assert client.error_of("POST", PATH, body) == (422, "cloud.invalid")
    assert client.error_of("POST", PATH, body, Content_Encoding="gzip") == (422, "cloud.invalid")


@pytest.mark.parametrize(
    "text", [b"\xff", b"\\ud800", b'", "n": 1e400, "m": "'], ids=["not UTF-8", "lone surrogate", "number out of range"]
)
def test_an_event_with_undecodable_text_does_not_affect_other_events(client: Client, text: bytes) -> None:
    event = json.dumps(turn("bad", said="WORDS")).encode().replace(b"WORDS", text)
    body = b'{"events": [%b, %b, %b]}' % (json.dumps(turn("a")).encode(), event, json.dumps(turn("b", seq=3)).encode())
    receipt = client.ok("POST", PATH, body)
    assert receipt["accepted"] == ["a", "b"]
    assert [rejection["code"] for rejection in receipt["rejected"]] == ["cloud.invalid"]


def test_a_body_with_too_many_values_is_rejected_before_decoding(client: Client) -> None:
    body = gzip.compress(b'{"events": [' + b"[]," * 1_000_000 + b"[]]}")
    assert client.error_of("POST", PATH, body, Content_Encoding="gzip") == (413, "cloud.batch_too_large")


def test_a_rejected_event_that_is_twice_in_a_batch_is_no_duplicate(client: Client) -> None:
    client.ok("DELETE", client.path)
    receipt = client.send(turn("x"), turn("x"))
    assert (receipt["accepted"], receipt["duplicate"]) == ([], [])
    assert [rejection["eventId"] for rejection in receipt["rejected"]] == ["x", "x"]


def test_the_end_wins_over_a_start_with_the_same_seq_in_any_order(client: Client) -> None:
    for number, events in enumerate([[0, 1], [1, 0]]):
        call = [session_start("s", f"call-{number}", 5), session_end("e", f"call-{number}", 5)]
        for position in events:
            client.send({**call[position], "eventId": f"{number}-{position}"})
    ((_, sessions),) = list_users_with_sessions(client)
    assert [session["endedAt"] for session in sessions] == [OCCURRED_AT, OCCURRED_AT]


def test_an_incomplete_gzip_body_is_rejected(client: Client) -> None:
    compressed = gzip.compress(json.dumps({"events": [turn("x")]}).encode())

    for body in (compressed[:-3], compressed + b"more", compressed[:10]):
        assert client.error_of("POST", PATH, body, Content_Encoding="gzip") == (422, "cloud.invalid")
    assert client.error_of("POST", PATH, compressed, Content_Encoding="br") == (422, "cloud.invalid")


def test_events_require_a_user(client: Client) -> None:
    without_user = Client(client.url, client.key, project=client.identity["project"])

    assert without_user.error_of("POST", PATH, {"events": [turn("x")]}) == (422, "cloud.invalid")


def correction(event_id: str, corrects: str, seq: int, said: str) -> Any:
    """Return a turn that corrects another one, as a runtime sends it."""
    event = turn(event_id, seq=seq, said=said)
    event["payload"] |= {"turnId": "t-2", "corrects": corrects}
    return event


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_a_call_has_the_prompt_of_the_latest_start_that_names_one(client: Client, order: tuple[int, ...]) -> None:
    starts = [session_start("a"), session_start("b", seq=3), session_start("c", seq=5)]
    starts[0]["payload"]["metadata"]["prompt"] = {"version": 3, "label": "production"}
    starts[2]["payload"]["metadata"]["prompt"] = {"version": 4, "label": "production"}
    for at in order:  # the one in between is from a machine that does not know the prompt
        client.send(starts[at])
        if {*order[: order.index(at) + 1]} == {0, 1}:
            assert client.ok("GET", "/v1/voice-sdk/sessions/call-1")["promptVersion"] == 3
    ((_, (session,)),) = list_users_with_sessions(client)
    assert session["promptVersion"] == 4
    assert session["metadata"]["prompt"] == {"version": 4, "label": "production"}


def test_what_an_application_calls_prompt_is_no_version(client: Client) -> None:
    start = session_start("a")
    start["payload"]["metadata"]["prompt"] = "You are a helpful voice."
    assert client.send(start)["accepted"] == ["a"]
    assert client.ok("GET", "/v1/voice-sdk/sessions/call-1")["promptVersion"] is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_corrected_turn_counts_once_and_all_its_versions_can_be_read(client: Client, order: tuple[int, ...]) -> None:
    versions = [turn("a"), correction("b", "a", 3, "My parcel is lost."), correction("c", "b", 4, "It was found.")]
    for at in order:
        client.send(versions[at])
    ((_, (session,)),) = list_users_with_sessions(client)
    assert session["turnCount"] == 1
    assert [event["payload"] for event in client.events("call-1")] == [event["payload"] for event in versions]


def test_a_turn_with_an_invalid_mark_of_a_correction_is_a_turn(client: Client) -> None:
    event = turn("a")
    event["payload"]["corrects"] = ["b"]
    assert client.send(event)["accepted"] == ["a"]
    ((_, (session,)),) = list_users_with_sessions(client)
    assert session["turnCount"] == 1


def test_an_event_id_that_comes_again_with_other_words_is_rejected_and_is_no_duplicate(client: Client) -> None:
    client.send(turn("a"), turn("b", seq=3))
    receipt = client.send(turn("a", said="My parcel is lost."), turn("b", seq=3))
    assert (receipt["accepted"], receipt["duplicate"]) == ([], ["b"])
    assert [(rejection["eventId"], rejection["code"]) for rejection in receipt["rejected"]] == [("a", "cloud.conflict")]
    assert "lost" not in str(receipt)
    assert client.events("call-1")[0]["payload"]["userText"] == "My parcel is late."
    receipt = client.send(turn("c", seq=4), turn("c", seq=4, said="My parcel is lost."))
    assert (receipt["accepted"], receipt["duplicate"]) == (["c"], [])
    assert [rejection["code"] for rejection in receipt["rejected"]] == ["cloud.conflict"]
