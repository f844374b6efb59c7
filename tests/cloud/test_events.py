"""Events come in: each once, in any order, by itself refused."""

import gzip
import itertools
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.clouds import DAY, Client, session_end, session_start, turn

PATH = "/v1/voice-sdk/events"


def a_call(session_id: str = "call-1", turns: int = 6) -> list[dict[str, Any]]:
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


def told(client: Client) -> Any:
    users = client.ok("GET", "/v1/voice-sdk/users")["users"]
    return [(user, client.ok("GET", f"/v1/voice-sdk/users/{user['userId']}/sessions")["sessions"]) for user in users]


@pytest.mark.parametrize("packed", [False, True])
def test_a_call_that_was_sent_can_be_read(client: Client, packed: bool) -> None:
    call = a_call()
    receipt = client.send(*call, packed=packed)

    assert receipt == {"accepted": [event["eventId"] for event in call], "duplicate": [], "rejected": []}
    keys = ("eventId", "type", "seq", "occurredAt", "payload")
    assert client.events("call-1") == [{key: event[key] for key in keys} for event in call]
    ((user, (session,)),) = told(client)
    assert user == {
        "userId": "0xab12",
        "name": "Ana",
        "metadata": {"tenant": "acme"},
        "sessionCount": 1,
        "lastSeenAt": "2026-03-02T09:45:00Z",
    }
    assert session == {
        "sessionId": "call-1",
        "userId": "0xab12",
        "startedAt": "2026-03-02T09:30:01Z",
        "endedAt": "2026-03-02T09:45:00Z",
        "turnCount": 6,
        "agentId": client.identity["agent"],
        "metadata": {"line": "returns"},
    }


def test_whatever_comes_twice_in_whatever_order_and_batches_is_kept_once(client: Client) -> None:
    calls = [event for number in range(3) for event in a_call(f"call-{number}")]
    orderly = client.with_(user="orderly")
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
    (first, sessions), (second, orderly_sessions) = told(client)
    assert {**first, "userId": ""} == {**second, "userId": ""}
    assert sessions == [{**session, "userId": "0xab12"} for session in orderly_sessions]


def test_writers_at_once_keep_each_event_once(client: Client) -> None:
    call = a_call(turns=60)
    halves = [call[:40], call[20:], call[10:50], call] * 2
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda half: client.send(*half), halves))

    accepted = [event_id for receipt in receipts for event_id in receipt["accepted"]]
    assert sorted(accepted) == sorted(event["eventId"] for event in call)
    ((user, (session,)),) = told(client)
    assert (user["sessionCount"], session["turnCount"]) == (1, 60)
    assert [event["seq"] for event in client.events("call-1")] == list(range(1, 63))


BAD: dict[str, Any] = {
    "no object": "hello",
    "no id": {key: value for key, value in turn("x").items() if key != "eventId"},
    "an id of control signs": turn("a\x00b"),
    "an id too long": turn("x" * 513),
    "an unknown type": turn("x", type="lunch"),
    "a negative seq": turn("x", seq=-1),
    "a seq that is a text": {**turn("x"), "seq": "2"},
    "a seq beyond whole numbers": {**turn("x"), "seq": 2**70},
    "no moment": turn("x", occurredAt="yesterday"),
    "a moment as a number": turn("x", occurredAt=1_772_443_800),
    "a moment before all time": turn("x", occurredAt="0001-01-01T00:00:00+14:00"),
    "a payload that is a list": turn("x", payload=[]),
    "a turn without words": turn("x", payload={"turnId": "t"}),
    "words that are a number": turn("x", payload={"turnId": "t", "userText": 5, "assistantText": ""}),
    "a start for somebody else": session_start("x", payload={"user": {"id": "another"}}),
    "a start whose user is a text": session_start("x", payload={"user": "Ana"}),
    "an id that begins with a space": turn(" x"),
    "an id that is a way up": turn(".."),
    "more than a runtime takes": turn("x", said="x" * 1_200_000),
    "nested without a floor": turn("x", payload={**turn("x")["payload"], "deep": json.loads("[" * 90 + "]" * 90)}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_event_is_refused_by_itself_with_its_reason(client: Client, bad: Any) -> None:
    receipt = client.send(turn("before", seq=1), bad, turn("after", seq=3))

    assert receipt["accepted"] == ["before", "after"]
    (refusal,) = receipt["rejected"]
    assert refusal["eventId"] == (bad.get("eventId") if isinstance(bad, dict) else None)
    assert refusal["code"] == "cloud.invalid"
    assert refusal["message"]
    assert [event["eventId"] for event in client.events("call-1")] == ["before", "after"]


def test_an_event_id_of_another_session_is_refused_and_not_taken_for_known(client: Client) -> None:
    client.send(turn("one", "call-1"))

    for batch in ([turn("one", "call-2")], [turn("two", "call-1"), turn("two", "call-2")]):
        (refusal,) = client.send(*batch)["rejected"]
        assert refusal["code"] == "cloud.conflict"
    assert client.with_(user="another").send(turn("one", "call-1"))["accepted"] == ["one"]


def test_words_come_back_as_they_were_said(client: Client) -> None:
    said = 'Ünïcödé \x00 \u2028 😀 "quoted" \\ </script> ' + "long " * 5_000
    payload = {**turn("x")["payload"], "userText": said, "toolCalls": [{"n": 12345678901234567, "x": [None, 1.5]}]}
    client.send(turn("x", payload=payload))

    assert client.events("call-1")[0]["payload"] == payload


def test_a_name_that_no_database_takes_is_mended(client: Client) -> None:
    client.send(session_start("x", name="A\x00na"))

    assert client.ok("GET", "/v1/voice-sdk/users")["users"][0]["name"] == "A\ufffdna"


def test_a_session_that_is_started_again_is_open_again(client: Client) -> None:
    client.send(session_end("end", seq=5))
    client.send(session_start("again", seq=6))
    client.send(session_start("start", seq=1, payload={"metadata": {"line": "old"}}))

    ((_, (session,)),) = told(client)
    assert session["endedAt"] is None
    assert session["metadata"] == {"line": "returns"}


def test_the_latest_start_names_the_caller(client: Client) -> None:
    client.send(session_start("b", "call-b", name="Ana B.", occurredAt="2026-03-05T09:00:00Z"))
    client.send(session_start("a", "call-a", name="Ana A.", occurredAt="2026-03-01T09:00:00Z"))
    client.send(session_start("c", "call-c", occurredAt="2026-03-07T09:00:00Z", payload={}))

    (user,) = client.ok("GET", "/v1/voice-sdk/users")["users"]
    assert (user["name"], user["sessionCount"], user["lastSeenAt"]) == ("Ana B.", 3, "2026-03-07T09:00:00Z")


def test_a_moment_without_a_zone_is_utc_and_one_with_a_zone_is_turned(client: Client) -> None:
    client.send(
        turn("a", seq=1, occurredAt="2026-03-02T09:30:00"), turn("b", seq=2, occurredAt="2026-03-02T09:30+02:00")
    )

    assert [event["occurredAt"] for event in client.events("call-1")] == [DAY, "2026-03-02T07:30:00Z"]


def test_callers_and_sessions_come_by_the_page(client: Client) -> None:
    for number in range(5):
        client.with_(user=f"caller {number}/ß").send(turn("x", occurredAt=f"2026-03-0{number + 1}T09:00:00Z"))
    for number in range(5):
        client.send(turn(f"x{number}", f"call/{number}", occurredAt=f"2026-03-0{number + 1}T09:00:00Z"))

    users = client.pages("/v1/voice-sdk/users", "users", limit=2)
    assert sorted(user["userId"] for user in users) == ["0xab12", *(f"caller {number}/ß" for number in range(5))]
    sessions = client.pages("/v1/voice-sdk/users/0xab12/sessions", "sessions", limit=2)
    assert [session["sessionId"] for session in sessions] == [f"call/{number}" for number in (4, 3, 2, 1, 0)]
    assert len(client.ok("GET", "/v1/voice-sdk/users/caller%203%2F%C3%9F/sessions")["sessions"]) == 1
    assert [event["eventId"] for event in client.events("call/3")] == ["x3"]


@pytest.mark.parametrize("cursor", ["x", "!!", "W10", "WzFd", "WyJhXHUwMDAwIl0", "bnVsbA", "%00", "W1tbW1tbXQ"])
def test_a_cursor_that_is_none_is_refused(client: Client, cursor: str) -> None:
    assert client.refused("GET", f"/v1/voice-sdk/users?cursor={cursor}") == (422, "cloud.invalid")


def test_of_two_callers_with_one_session_id_the_header_tells_which_is_meant(client: Client) -> None:
    other = client.with_(user="0xcd34")
    client.send(turn("mine"))
    other.send(turn("theirs"))
    nobody = Client(client.url, client.key, project=client.identity["project"])

    assert [event["eventId"] for event in client.events("call-1")] == ["mine"]
    assert [event["eventId"] for event in other.events("call-1")] == ["theirs"]
    assert nobody.refused("GET", "/v1/voice-sdk/sessions/call-1/events") == (409, "cloud.conflict")


def test_a_batch_over_the_limit_is_refused_whole(client: Client) -> None:
    batch = [turn(f"{number}", seq=number) for number in range(501)]

    assert client.refused("POST", PATH, {"events": batch}) == (413, "cloud.batch_too_large")
    assert client.ok("GET", "/v1/voice-sdk/users")["users"] == []
    assert len(client.send(*batch[:500])["accepted"]) == 500


def test_a_body_that_would_unfold_without_end_is_refused(client: Client) -> None:
    bomb = gzip.compress(b"[" + b" " * (64 << 20) + b"]")

    assert len(bomb) < 1 << 20
    assert client.refused("POST", PATH, bomb, Content_Encoding="gzip") == (413, "cloud.batch_too_large")


WRONG = {
    "no json": b"{",
    "no object": b"[]",
    "nothing": b"",
    "not a number": b'{"events": [NaN]}',
    "no events": b"{}",
    "events that are none": b'{"events": {}}',
    "without a floor": b'{"events": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
def test_a_body_that_is_no_batch_is_refused(client: Client, body: bytes) -> None:
    assert client.refused("POST", PATH, body) == (422, "cloud.invalid")
    assert client.refused("POST", PATH, body, Content_Encoding="gzip") == (422, "cloud.invalid")


@pytest.mark.parametrize(
    "words", [b"\xff", b"\\ud800", b'", "n": 1e400, "m": "'], ids=["no utf-8", "half a pair", "endless"]
)
def test_words_that_can_not_be_read_concern_no_other_event(client: Client, words: bytes) -> None:
    whole = json.dumps(turn("bad", said="WORDS")).encode().replace(b"WORDS", words)
    body = b'{"events": [%b, %b, %b]}' % (json.dumps(turn("a")).encode(), whole, json.dumps(turn("b", seq=3)).encode())
    receipt = client.ok("POST", PATH, body)
    assert receipt["accepted"] == ["a", "b"]
    assert [refused["code"] for refused in receipt["rejected"]] == ["cloud.invalid"]


def test_a_body_of_too_many_values_is_refused_before_it_is_unfolded(client: Client) -> None:
    body = gzip.compress(b'{"events": [' + b"[]," * 1_000_000 + b"[]]}")
    assert client.refused("POST", PATH, body, Content_Encoding="gzip") == (413, "cloud.batch_too_large")


def test_an_event_that_came_twice_in_a_batch_and_is_refused_is_no_duplicate(client: Client) -> None:
    client.ok("DELETE", client.path)
    receipt = client.send(turn("x"), turn("x"))
    assert (receipt["accepted"], receipt["duplicate"]) == ([], [])
    assert [refused["eventId"] for refused in receipt["rejected"]] == ["x", "x"]


def test_of_a_start_and_an_end_at_once_the_end_counts_in_whatever_order(client: Client) -> None:
    for number, events in enumerate([[0, 1], [1, 0]]):
        call = [session_start("s", f"call-{number}", 5), session_end("e", f"call-{number}", 5)]
        for place in events:
            client.send({**call[place], "eventId": f"{number}-{place}"})
    ((_, sessions),) = told(client)
    assert [session["endedAt"] for session in sessions] == [DAY, DAY]


def test_half_of_a_packed_body_is_refused(client: Client) -> None:
    whole = gzip.compress(json.dumps({"events": [turn("x")]}).encode())

    for body in (whole[:-3], whole + b"more", whole[:10]):
        assert client.refused("POST", PATH, body, Content_Encoding="gzip") == (422, "cloud.invalid")
    assert client.refused("POST", PATH, whole, Content_Encoding="br") == (422, "cloud.invalid")


def test_events_need_a_caller(client: Client) -> None:
    nobody = Client(client.url, client.key, project=client.identity["project"])

    assert nobody.refused("POST", PATH, {"events": [turn("x")]}) == (422, "cloud.invalid")
