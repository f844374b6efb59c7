"""Calls as the platforms report them: what is remembered, for which caller, and how often it is saved."""

import random
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bridge.callers import make_caller_id
from support.clients import PROJECT, free_ports, frozen, pid_of, turn_ids
from support.waiting import eventually
from support.webhooks import (
    NUMBER,
    OTHER_NUMBER,
    OUR_NUMBER,
    elevenlabs_event,
    retell_call,
    twilio_form,
    vapi_message,
    vapi_report,
)

SALT = "salt-of-the-tests-of-the-bridge"  # the same as in conftest.py

TRANSCRIPT = [
    ("agent", "Juno here."),
    ("user", "My boots are"),
    ("user", "size nine."),
    ("agent", "Noted."),
    ("user", "Bye."),
]
EXPECTED_TURNS = [("", "Juno here."), ("My boots are size nine.", "Noted."), ("Bye.", "")]
EXPECTED_TIMES = ["2026-03-02T09:30:00Z", "2026-03-02T09:30:10Z", "2026-03-02T09:30:40Z"]


def texts_of(turns: list[tuple[str, str, str, str]]) -> list[tuple[str, str]]:
    return [(user, agent) for _, user, agent, _ in turns]


def list_callers_on_disk(bridge: Any) -> set[str]:
    return {path.name for path in (bridge.storage_root / PROJECT).glob("*") if path.is_dir()}


def report_call(bridge: Any, platform: str, call: str, number: str | None = NUMBER) -> int:
    """Report a finished call as a platform does, and return the status of the answer."""
    if platform == "vapi":
        messages = [("bot" if role == "agent" else role, text) for role, text in TRANSCRIPT]
        return int(bridge.post_vapi(vapi_report(call, *messages, number=number)).status_code)
    if platform == "elevenlabs":
        return int(bridge.post_elevenlabs(elevenlabs_event(call, *TRANSCRIPT, number=number)).status_code)
    event = {"event": platform, "call": retell_call(call, *TRANSCRIPT, number=number)}
    return int(bridge.post_retell("webhook", event).status_code)


@pytest.mark.parametrize("platform", ["vapi", "call_ended", "call_analyzed", "elevenlabs"])
def test_a_reported_call_is_saved_once_with_its_original_times(bridge: Any, platform: str) -> None:
    call = f"kept-{platform}"
    for _ in range(3):
        assert report_call(bridge, platform, call) in (200, 204)
    turns = bridge.read_saved_turns(call)
    assert texts_of(turns) == EXPECTED_TURNS
    assert [at for *_, at in turns] == EXPECTED_TIMES
    assert [turn_id for turn_id, *_ in turns] == [f"{call}:{position}" for position in (0, 1, 2)]


def test_the_end_events_of_a_retell_call_may_arrive_concurrently_in_any_order(bridge: Any) -> None:
    for number in range(8):
        call = f"retell-{number}"
        events = ["call_ended", "call_analyzed"] * 3
        random.Random(number).shuffle(events)
        with ThreadPoolExecutor(6) as threads:
            assert set(threads.map(lambda event, of=call: report_call(bridge, event, of), events)) == {204}
        assert texts_of(bridge.read_saved_turns(call)) == EXPECTED_TURNS


def test_a_call_on_one_platform_is_recalled_on_all_platforms(bridge: Any) -> None:
    number = "+33142685300"
    assert report_call(bridge, "call_ended", "shared-1", number) == 204
    question = "Which size are my boots?"
    messages = [{"role": "system", "content": "Be Juno."}, {"role": "user", "content": question}]
    [document] = bridge.post_vapi(vapi_message("knowledge-base-request", number=number, messages=messages)).json[
        "documents"
    ]
    reply = bridge.post_retell(
        "function", {"name": "recall", "call": retell_call("c", number=number), "args": {"query": question}}
    )
    memories = [
        document["content"],
        reply.json["memory"],
        bridge.call_tool(question, number),
        bridge.call_tool(question, "+33 (0)1 42-68.53 00".replace("(0)", "")),
        bridge.say("CAshared", 1, question, number),
    ]
    assert all("size nine" in memory for memory in memories), memories
    assert document["similarity"] == 1.0


def test_a_retell_function_without_a_query_searches_for_the_callers_last_words(bridge: Any) -> None:
    number = "+4930901820"
    report_call(bridge, "call_ended", "last-words", number)
    call = retell_call("now", ("user", "Which size are my boots?"), ("agent", "Let me look."), number=number)
    assert "size nine" in bridge.post_retell("function", {"call": call}).json["memory"]


def test_a_caller_cannot_recall_what_another_caller_said(bridge: Any) -> None:
    report_call(bridge, "vapi", "private-1", NUMBER)
    question = "Which size are my boots?"
    assert "size nine" in bridge.call_tool(question, NUMBER)
    for number in (OTHER_NUMBER, "anonymous", "+266696687", "", None):
        assert bridge.call_tool(question, number) == ""


@pytest.mark.parametrize("number", ["anonymous", "Restricted", "+266696687", "", "sip:anonymous@anonymous.invalid"])
def test_a_caller_with_a_withheld_number_is_answered_without_memory(bridge: Any, number: str, tmp_path: Path) -> None:
    assert make_caller_id(b"salt", number) is None
    before = list_callers_on_disk(bridge)
    assert "I have noted" in bridge.say("CAhidden", 1, "My boots are size nine.", number)
    assert "I have noted" in bridge.say("CAhidden", 2, "Which size are my boots?", number)
    assert report_call(bridge, "vapi", "hidden", number) == 200
    assert report_call(bridge, "vapi", "hidden", None) == 200
    assert list_callers_on_disk(bridge) == before


def test_the_caller_of_an_outbound_call_is_the_person_called(bridge: Any) -> None:
    number = "+390636225"
    call = retell_call("out-1", *TRANSCRIPT, number=OUR_NUMBER, direction="outbound", to_number=number)
    assert bridge.post_retell("webhook", {"event": "call_ended", "call": call}).status_code == 204
    assert texts_of(bridge.read_saved_turns("out-1", number)) == EXPECTED_TURNS
    form = twilio_form("CAout", "Hello?", OUR_NUMBER, Direction="outbound-api", To=number)
    assert bridge.post_twilio("/twilio/turn?n=1", form).status_code == 200
    assert texts_of(bridge.read_saved_turns("CAout", number))[0][0] == "Hello?"
    assert not bridge.read_saved_turns("CAout", OUR_NUMBER)


def test_elevenlabs_may_send_the_number_only_as_a_dynamic_variable(bridge: Any) -> None:
    event = elevenlabs_event("variable-1", *TRANSCRIPT, ("agent", None), number=None)
    event["data"]["conversation_initiation_client_data"]["dynamic_variables"]["system__caller_id"] = NUMBER
    assert bridge.post_elevenlabs(event).status_code == 200
    assert texts_of(bridge.read_saved_turns("variable-1")) == EXPECTED_TURNS


def test_twilio_turns_of_this_call_and_of_earlier_calls_are_recalled(bridge: Any) -> None:
    number = "+43150123456"
    reply = bridge.post_twilio("/twilio/voice", twilio_form("CAtalk", number=number))
    gather = ElementTree.fromstring(reply.text).find("Gather")
    assert gather is not None
    assert gather.get("action") == "https://voice.example.com/bridge/twilio/turn?n=1"
    assert (gather.get("input"), gather.get("method"), gather.get("actionOnEmptyResult")) == ("speech", "POST", "true")

    assert "turn?n=2" in bridge.say("CAtalk", 1, "My tent is green.", number)
    assert "My tent is green." in bridge.say("CAtalk", 2, "Which colour has my tent?", number)  # from this call
    assert "My tent is green." in bridge.say("CAtalk-2", 1, "Which colour has my tent?", number)  # from an earlier call
    assert [(turn_id, user) for turn_id, user, *_ in bridge.read_saved_turns("CAtalk", number)] == [
        ("CAtalk:1", "My tent is green."),
        ("CAtalk:2", "Which colour has my tent?"),
    ]


def test_a_silent_caller_is_asked_twice_before_the_call_ends(bridge: Any) -> None:
    path, replies = "/twilio/turn?n=4", []
    for _ in range(3):
        twiml = ElementTree.fromstring(bridge.post_twilio(path, twilio_form("CAsilent", "  ")).text)
        replies.append([element.tag for element in twiml])
        gather = twiml.find("Gather")
        if gather is not None:
            path = str(gather.get("action")).removeprefix("https://voice.example.com/bridge")
            assert path.startswith("/twilio/turn?n=4&")
    assert replies == [["Gather"], ["Gather"], ["Say", "Hangup"]]
    assert not bridge.read_saved_turns("CAsilent")


def test_repeated_late_or_concurrent_twilio_turns_are_saved_once(bridge: Any) -> None:
    number = "+551151870000"
    turns = [turn for turn in range(1, 33) for _ in range(2)]
    random.Random(7).shuffle(turns)
    with ThreadPoolExecutor(8) as threads:
        replies = set(threads.map(lambda turn: bridge.say("CAmany", turn, f"This is turn {turn}.", number), turns))
    assert len(replies) == 32  # a turn that is sent again gets the same answer
    assert bridge.count_saved_events("CAmany", number) == 32
    assert sorted((turn_id, user) for turn_id, user, *_ in bridge.read_saved_turns("CAmany", number)) == sorted(
        (f"CAmany:{turn}", f"This is turn {turn}.") for turn in range(1, 33)
    )


def test_the_words_of_a_caller_cannot_inject_twiml(bridge: Any) -> None:
    malicious_text = "</Say></Gather><Dial>+19005550100</Dial> & \x00\x0b\x1b ]]> \u202e " + "long " * 2_000
    twiml = ElementTree.fromstring(bridge.say("CAevil", 1, malicious_text, "+81352532111"))
    assert [element.tag for element in twiml.iter()] == ["Response", "Gather", "Say"]
    say = twiml.find("Gather/Say")
    assert say is not None
    assert say.text is not None
    assert "<Dial>+19005550100</Dial> &" in say.text
    assert len(say.text) <= 4_096


def test_phone_numbers_are_not_written_to_disk(bridge: Any) -> None:
    number = "+61280464600"
    bridge.say("CAdisk", 1, "Hello there.", number)
    for platform in ("vapi", "call_ended", "elevenlabs"):
        report_call(bridge, platform, f"disk-{platform}", number)
    assert texts_of(bridge.read_saved_turns("CAdisk", number))
    digits = number.removeprefix("+")
    assert not [path for path in bridge.storage_root.rglob("*") if digits in str(path)]
    found = subprocess.run(["grep", "-rlaF", digits, bridge.storage_root], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (1, b"")


def test_a_caller_id_depends_on_the_salt_and_not_on_punctuation() -> None:
    assert make_caller_id(b"one salt", NUMBER) != make_caller_id(b"another salt", NUMBER)
    assert make_caller_id(b"one salt", NUMBER) == make_caller_id(b"one salt", " +1 (415) 555-0123")


def test_an_unresponsive_memory_delays_no_answer_and_turns_are_saved_later(
    make_bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._pool.handle.UNRESPONSIVE_AFTER_S", 600.0)  # so it is not replaced
    monkeypatch.setattr("memoair_voice_sync.client._CLOSE_TIMEOUT_S", 60.0)
    monkeypatch.setattr("memoair_voice_sync._user_calls._SAVE_TIMEOUT_S", 1.0)
    bridge = make_bridge(BRIDGE_RECALL_MS="200", BRIDGE_KEEP_MS="200")
    memory = bridge.app.extensions["memory"]
    memory.warm_up(make_caller_id(SALT.encode(), NUMBER), None)
    eventually(lambda: "size nine" in bridge.say("CAbefore", 1, "My boots are size nine."))
    with frozen(pid_of(memory._get_client(), str(make_caller_id(SALT.encode(), NUMBER)))):
        took_s: list[float] = []
        while not took_s or (took_s[-1] >= 5 and len(took_s) < 3):  # on a busy machine, single turns may take longer
            started_at = time.monotonic()
            assert "I have noted" in bridge.say("CAhangs", len(took_s) + 1, "Which size are my boots?")
            took_s.append(time.monotonic() - started_at)
        assert min(took_s) < 5
    bridge.close()
    saved_ids = turn_ids(bridge.storage_root, str(make_caller_id(SALT.encode(), NUMBER)))
    assert [saved_ids.count(f"CAhangs:{number}") for number in range(1, len(took_s) + 1)] == [1] * len(took_s)


def test_the_first_search_of_a_process_waits_for_the_runtime_to_start(make_bridge: Any) -> None:
    report_call(make_bridge(), "call_ended", "earlier")

    def recall_with_new_bridge() -> str:  # called again if the machine is too busy to start the runtime in time
        bridge = make_bridge(BRIDGE_RECALL_MS="20")
        memory = str(bridge.call_tool("Which size are my boots?"))
        bridge.close()
        return memory

    assert "size nine" in eventually(recall_with_new_bridge)


def test_without_memory_calls_are_answered_and_reports_get_503(make_bridge: Any) -> None:
    port, _ = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        bridge = make_bridge(BRIDGE_RUNTIME_PORTS=f"{port}-{port}", BRIDGE_RECALL_MS="250")
        assert bridge.post_twilio("/twilio/voice", twilio_form("CAnone")).status_code == 200
        assert "I have noted" in bridge.say("CAnone", 1, "My boots are size nine.")
        assert bridge.call_tool("boots") == ""
        assert report_call(bridge, "call_ended", "none-1") == 503
        assert report_call(bridge, "vapi", "none-2") == 503
        assert report_call(bridge, "elevenlabs", "none-3") == 503
    assert report_call(bridge, "call_ended", "none-1") == 204
    assert texts_of(bridge.read_saved_turns("none-1")) == EXPECTED_TURNS
