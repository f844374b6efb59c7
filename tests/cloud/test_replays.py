"""Replays: the questions of past calls, asked again against a candidate."""

from datetime import datetime, timedelta, timezone
from typing import Any

from support.clouds import Client, RunningCloud, session_start, turn

from memoair_cloud.evaluation.replay_questions import ChosenQuestions, choose_questions
from memoair_cloud.tenancy.access import find_project_tenant
from memoair_protocol.timestamps import format_utc

MONDAY = datetime(2026, 3, 2, 9, tzinfo=timezone.utc)


def at(minutes: float) -> str:
    return format_utc(MONDAY + timedelta(minutes=minutes))


def send_turns(client: Client, session_id: str, *texts: str, start: float = 0.0) -> None:
    """Send a call whose turns are a minute apart."""
    turns = [
        turn(f"{session_id}-{number}", session_id, number + 1, text, occurredAt=at(start + number))
        for number, text in enumerate(texts, 1)
    ]
    client.send(session_start(f"{session_id}-start", session_id, 1, occurredAt=at(start)), *turns)


def choose(cloud: RunningCloud, client: Client, most: int, minutes: tuple[int, int] = (0, 10_000)) -> ChosenQuestions:
    tenant = find_project_tenant(cloud.services.engine, client.identity["project"])
    assert tenant is not None
    since, until = (MONDAY + timedelta(minutes=count) for count in minutes)
    with tenant.begin_read() as session:
        return choose_questions(session, client.identity["agent"], since, until, most)


def ids(chosen: ChosenQuestions) -> list[str]:
    return [question.event_id for question in chosen.questions]


def test_the_questions_of_a_replay_are_spread_evenly_over_the_turns_of_the_period(
    cloud: RunningCloud, client: Client
) -> None:
    for number in range(4):
        caller = client.with_identity(user=f"caller-{number}")
        send_turns(caller, f"call-{number}", *[f"Question {index}?" for index in range(5)], start=number * 100)

    everything = choose(cloud, client, 1_000)
    assert len(everything.questions) == everything.turn_count == 20
    assert ids(choose(cloud, client, 5)) == ids(everything)[::4]
    assert choose(cloud, client, 5) == choose(cloud, client, 5)
    times = [question.occurred_at for question in everything.questions]
    assert times == sorted(times)
    assert ids(choose(cloud, client, 10, (101, 103))) == ["call-1-1", "call-1-2"], "the end is not included"
    assert ids(choose(cloud, client, 10, (5_000, 6_000))) == []


def test_turns_without_words_and_corrections_are_no_questions(cloud: RunningCloud, client: Client) -> None:
    send_turns(client, "call", "", " ... ", "Where is it?", "?!", "42", "Where is my parcel?")
    corrected: dict[str, Any] = turn("call-9", "call", 9, "Where is my red parcel?", occurredAt=at(9))
    corrected["payload"]["corrects"] = "call-6"
    client.send(corrected)

    assert ids(choose(cloud, client, 1_000)) == ["call-3", "call-5", "call-6"]
    assert ids(choose(cloud, client, 2)) == ["call-3", "call-5"], "a part begins with silence"
    assert len(choose(cloud, client, 1).questions) == 1


def test_only_calls_of_the_agent_are_replayed(cloud: RunningCloud, client: Client) -> None:
    path = f"/v1/projects/{client.identity['project']}/agents"
    other = client.ok("POST", path, {"name": "Sales", "agentType": "voice"})["id"]
    send_turns(client, "ours", "Where is it?")
    send_turns(client.with_identity(agent=other), "theirs", "What does it cost?")

    assert ids(choose(cloud, client, 10)) == ["ours-1"]
    assert ids(choose(cloud, client.with_identity(agent=other), 10)) == ["theirs-1"]
