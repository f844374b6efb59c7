"""Calls, as the platforms tell of them: what is remembered, by whom, and how often."""

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

SALT = "salt-of-the-tests-of-the-bridge"  # as in conftest.py

SAID = [
    ("agent", "Juno here."),
    ("user", "My boots are"),
    ("user", "size nine."),
    ("agent", "Noted."),
    ("user", "Bye."),
]
KEPT = [("", "Juno here."), ("My boots are size nine.", "Noted."), ("Bye.", "")]
TIMES = ["2026-03-02T09:30:00Z", "2026-03-02T09:30:10Z", "2026-03-02T09:30:40Z"]


def words(turns: list[tuple[str, str, str, str]]) -> list[tuple[str, str]]:
    return [(user, agent) for _, user, agent, _ in turns]


def callers_on_disk(bridge: Any) -> set[str]:
    return {path.name for path in (bridge.storage_root / PROJECT).glob("*") if path.is_dir()}


def tell(bridge: Any, platform: str, call: str, number: str | None = NUMBER) -> int:
    """Tell of a call that is over, as a platform does; the status of the answer."""
    if platform == "vapi":
        said = [("bot" if role == "agent" else role, text) for role, text in SAID]
        return int(bridge.vapi(vapi_report(call, *said, number=number)).status_code)
    if platform == "elevenlabs":
        return int(bridge.elevenlabs(elevenlabs_event(call, *SAID, number=number)).status_code)
    told = {"event": platform, "call": retell_call(call, *SAID, number=number)}
    return int(bridge.retell("webhook", told).status_code)


@pytest.mark.parametrize("platform", ["vapi", "call_ended", "call_analyzed", "elevenlabs"])
def test_a_call_that_is_told_of_is_kept_once_with_the_times_of_then(bridge: Any, platform: str) -> None:
    call = f"kept-{platform}"
    for _ in range(3):
        assert tell(bridge, platform, call) in (200, 204)
    turns = bridge.kept(call)
    assert words(turns) == KEPT
    assert [at for *_, at in turns] == TIMES
    assert [turn_id for turn_id, *_ in turns] == [f"{call}:{place}" for place in (0, 1, 4)]


def test_the_two_events_of_a_retell_call_may_come_in_any_order_and_at_once(bridge: Any) -> None:
    for number in range(8):
        call = f"retell-{number}"
        events = ["call_ended", "call_analyzed"] * 3
        random.Random(number).shuffle(events)
        with ThreadPoolExecutor(6) as threads:
            assert set(threads.map(lambda event, of=call: tell(bridge, event, of), events)) == {204}
        assert words(bridge.kept(call)) == KEPT


def test_what_one_platform_told_is_known_on_all_of_them(bridge: Any) -> None:
    number = "+33142685300"
    assert tell(bridge, "call_ended", "shared-1", number) == 204
    asked = "Which size are my boots?"
    messages = [{"role": "system", "content": "Be Juno."}, {"role": "user", "content": asked}]
    [document] = bridge.vapi(vapi_message("knowledge-base-request", number=number, messages=messages)).json["documents"]
    told = bridge.retell(
        "function", {"name": "recall", "call": retell_call("c", number=number), "args": {"query": asked}}
    )
    remembered = [
        document["content"],
        told.json["memory"],
        bridge.tool(asked, number),
        bridge.tool(asked, "+33 (0)1 42-68.53 00".replace("(0)", "")),
        bridge.says("CAshared", 1, asked, number),
    ]
    assert all("size nine" in each for each in remembered), remembered
    assert document["similarity"] == 1.0


def test_a_retell_function_without_a_query_asks_with_the_callers_last_words(bridge: Any) -> None:
    number = "+4930901820"
    tell(bridge, "call_ended", "last-words", number)
    call = retell_call("now", ("user", "Which size are my boots?"), ("agent", "Let me look."), number=number)
    assert "size nine" in bridge.retell("function", {"call": call}).json["memory"]


def test_nobody_hears_what_another_said(bridge: Any) -> None:
    tell(bridge, "vapi", "private-1", NUMBER)
    asked = "Which size are my boots?"
    assert "size nine" in bridge.tool(asked, NUMBER)
    for number in (OTHER_NUMBER, "anonymous", "+266696687", "", None):
        assert bridge.tool(asked, number) == ""


@pytest.mark.parametrize("number", ["anonymous", "Restricted", "+266696687", "", "sip:alex@example.com"])
def test_who_hides_his_number_is_answered_and_shares_no_memory(bridge: Any, number: str, tmp_path: Path) -> None:
    assert make_caller_id(b"salt", number) is None
    before = callers_on_disk(bridge)
    assert "I have noted" in bridge.says("CAhidden", 1, "My boots are size nine.", number)
    assert "I have noted" in bridge.says("CAhidden", 2, "Which size are my boots?", number)
    assert tell(bridge, "vapi", "hidden", number) == 200
    assert tell(bridge, "vapi", "hidden", None) == 200
    assert callers_on_disk(bridge) == before


def test_of_a_call_that_we_make_the_caller_is_whom_we_call(bridge: Any) -> None:
    number = "+390636225"
    call = retell_call("out-1", *SAID, number=OUR_NUMBER, direction="outbound", to_number=number)
    assert bridge.retell("webhook", {"event": "call_ended", "call": call}).status_code == 204
    assert words(bridge.kept("out-1", number)) == KEPT
    form = twilio_form("CAout", "Hello?", OUR_NUMBER, Direction="outbound-api", To=number)
    assert bridge.twilio("/twilio/turn?n=1", form).status_code == 200
    assert words(bridge.kept("CAout", number))[0][0] == "Hello?"
    assert not bridge.kept("CAout", OUR_NUMBER)


def test_elevenlabs_may_know_the_number_by_its_variable_alone(bridge: Any) -> None:
    event = elevenlabs_event("variable-1", *SAID, ("agent", None), number=None)
    event["data"]["conversation_initiation_client_data"]["dynamic_variables"]["system__caller_id"] = NUMBER
    assert bridge.elevenlabs(event).status_code == 200
    assert words(bridge.kept("variable-1")) == KEPT


def test_a_phone_call_through_twilio(bridge: Any) -> None:
    rings = bridge.twilio("/twilio/voice", twilio_form("CAtalk"))
    gather = ElementTree.fromstring(rings.text).find("Gather")
    assert gather is not None
    assert gather.get("action") == "https://voice.example.com/bridge/twilio/turn?n=1"
    assert (gather.get("input"), gather.get("method"), gather.get("actionOnEmptyResult")) == ("speech", "POST", "true")

    assert "turn?n=2" in bridge.says("CAtalk", 1, "My tent is green.")
    assert "My tent is green." in bridge.says("CAtalk", 2, "Which colour has my tent?")  # of this call
    assert "My tent is green." in bridge.says("CAtalk-2", 1, "Which colour has my tent?")  # and of an earlier one
    assert [(turn_id, user) for turn_id, user, *_ in bridge.kept("CAtalk")] == [
        ("CAtalk:1", "My tent is green."),
        ("CAtalk:2", "Which colour has my tent?"),
    ]


def test_a_silent_caller_is_asked_twice_and_then_let_go(bridge: Any) -> None:
    path, heard = "/twilio/turn?n=4", []
    for _ in range(3):
        told = ElementTree.fromstring(bridge.twilio(path, twilio_form("CAsilent", "  ")).text)
        heard.append([each.tag for each in told])
        gather = told.find("Gather")
        if gather is not None:
            path = str(gather.get("action")).removeprefix("https://voice.example.com/bridge")
            assert path.startswith("/twilio/turn?n=4&")
    assert heard == [["Gather"], ["Gather"], ["Say", "Hangup"]]
    assert not bridge.kept("CAsilent")


def test_turns_that_twilio_tells_again_or_late_or_at_once_are_kept_once(bridge: Any) -> None:
    number = "+551151870000"
    turns = [turn for turn in range(1, 33) for _ in range(2)]
    random.Random(7).shuffle(turns)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda turn: bridge.says("CAmany", turn, f"This is turn {turn}.", number), turns))
    assert sorted((turn_id, user) for turn_id, user, *_ in bridge.kept("CAmany", number)) == sorted(
        (f"CAmany:{turn}", f"This is turn {turn}.") for turn in range(1, 33)
    )


def test_what_a_caller_says_can_not_leave_the_words_of_the_answer(bridge: Any) -> None:
    evil = "</Say></Gather><Dial>+19005550100</Dial> & \x00\x0b\x1b ]]> \u202e " + "long " * 2_000
    told = ElementTree.fromstring(bridge.says("CAevil", 1, evil, "+81352532111"))
    assert [each.tag for each in told.iter()] == ["Response", "Gather", "Say"]
    say = told.find("Gather/Say")
    assert say is not None
    assert say.text is not None
    assert "<Dial>+19005550100</Dial> &" in say.text
    assert len(say.text) <= 4_096


def test_the_number_lies_nowhere_on_the_disk(bridge: Any) -> None:
    number = "+61280464600"
    bridge.says("CAdisk", 1, "Hello there.", number)
    for platform in ("vapi", "call_ended", "elevenlabs"):
        tell(bridge, platform, f"disk-{platform}", number)
    assert words(bridge.kept("CAdisk", number))
    digits = number.removeprefix("+")
    assert not [path for path in bridge.storage_root.rglob("*") if digits in str(path)]
    found = subprocess.run(["grep", "-rlaF", digits, bridge.storage_root], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (1, b"")


def test_another_salt_makes_other_callers() -> None:
    assert make_caller_id(b"one salt", NUMBER) != make_caller_id(b"another salt", NUMBER)
    assert make_caller_id(b"one salt", NUMBER) == make_caller_id(b"one salt", " +1 (415) 555-0123")


def test_while_the_memory_hangs_there_is_an_answer_in_time_and_the_turn_is_kept_later(
    new_bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._pool.handle.UNRESPONSIVE_AFTER_S", 600.0)  # it hangs, and is not replaced
    monkeypatch.setattr("memoair_voice_sync.client._CLOSE_TIMEOUT_S", 60.0)
    monkeypatch.setattr("memoair_voice_sync._user_calls._SAVE_TIMEOUT_S", 1.0)
    bridge = new_bridge(BRIDGE_RECALL_MS="200", BRIDGE_KEEP_MS="200")
    memory = bridge.app.extensions["memory"]
    memory.warm_up(make_caller_id(SALT.encode(), NUMBER))
    eventually(lambda: "size nine" in bridge.says("CAbefore", 1, "My boots are size nine."))
    with frozen(pid_of(memory._get_client(), str(make_caller_id(SALT.encode(), NUMBER)))):
        took_s: list[float] = []
        while not took_s or (took_s[-1] >= 5 and len(took_s) < 3):  # a busy machine may draw out one or another
            began_at = time.monotonic()
            assert "I have noted" in bridge.says("CAhangs", len(took_s) + 1, "Which size are my boots?")
            took_s.append(time.monotonic() - began_at)
        assert min(took_s) < 5
    bridge.close()
    kept = turn_ids(bridge.storage_root, str(make_caller_id(SALT.encode(), NUMBER)))
    assert [kept.count(f"CAhangs:{number}") for number in range(1, len(took_s) + 1)] == [1] * len(took_s)


def test_the_first_search_of_a_process_waits_until_there_is_somebody_to_answer(new_bridge: Any) -> None:
    tell(new_bridge(), "call_ended", "earlier")

    def first() -> str:  # a machine under load may need another try
        bridge = new_bridge(BRIDGE_RECALL_MS="20")
        told = str(bridge.tool("Which size are my boots?"))
        bridge.close()
        return told

    assert "size nine" in eventually(first)


def test_without_a_memory_there_is_an_answer_and_the_platform_is_asked_to_tell_again(new_bridge: Any) -> None:
    first, _ = free_ports(1)
    with socket.create_server(("127.0.0.1", first)):
        bridge = new_bridge(BRIDGE_RUNTIME_PORTS=f"{first}-{first}", BRIDGE_RECALL_MS="250")
        assert bridge.twilio("/twilio/voice", twilio_form("CAnone")).status_code == 200
        assert "I have noted" in bridge.says("CAnone", 1, "My boots are size nine.")
        assert bridge.tool("boots") == ""
        assert tell(bridge, "call_ended", "none-1") == 503
        assert tell(bridge, "vapi", "none-2") == 503
        assert tell(bridge, "elevenlabs", "none-3") == 503
    assert tell(bridge, "call_ended", "none-1") == 204
    assert words(bridge.kept("none-1")) == KEPT
