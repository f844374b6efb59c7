"""The bridge as a custom model of Vapi and ElevenLabs: asked with OpenAI's client, in front of a scripted model."""

import gc
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from support.model_server import ScriptedModel
from support.waiting import eventually
from support.webhooks import NUMBER, elevenlabs_event, vapi_report
from werkzeug.serving import make_server

SECRET = "secret-of-the-platforms-for-the-model"
KEY = "key-of-the-operator-for-the-model"
SYSTEM = {"role": "system", "content": "You are Juno."}
GREETING = {"role": "assistant", "content": "Juno here."}
Messages = list[dict[str, Any]]


class ServedBridge:
    """A bridge on a port, with OpenAI's client for it."""

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge
        self.server = make_server("127.0.0.1", 0, bridge.app, threaded=True)
        self.server.daemon_threads = False  # type: ignore[attr-defined] # so that closing waits for them
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()
        self._clients: list[openai.OpenAI] = []

    def client(self, platform: str = "vapi", secret: str = SECRET) -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.server.server_port}/{platform}/v1"
        self._clients.append(openai.OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=60))
        return self._clients[-1]

    def stream(self, messages: Messages, call: str, platform: str = "vapi", **options: Any) -> Any:
        """Ask for an answer as the platform does in a call."""
        extra = vapi_fields(call) if platform == "vapi" else elevenlabs_fields(call)
        options = {"extra_body": extra, **options}
        return self.client(platform).chat.completions.create(
            model="gpt-of-the-platform", messages=messages, stream=True, temperature=0.5, **options
        )

    def ask(self, messages: Messages, call: str, platform: str = "vapi", **options: Any) -> str:
        """Return the whole answer."""
        with self.stream(messages, call, platform, **options) as chunks:
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
        gc.collect()  # Werkzeug leaves a selector behind if a client has left


def vapi_fields(call: str, number: str | None = NUMBER) -> dict[str, Any]:
    """Return what Vapi adds to a request, with ``metadataSendMode`` variable."""
    customer = {} if number is None else {"customer": {"number": number}}
    return {
        "call": {"id": call, "orgId": "o", "type": "inboundPhoneCall", **customer},
        "phoneNumber": {"number": "+18005550199"},
        "metadata": {"campaign": "spring"},
        **customer,
    }


def elevenlabs_fields(call: str) -> dict[str, Any]:
    """Return what ElevenLabs adds to a request, if the extra body of a custom model is on."""
    return {"user_id": NUMBER, "elevenlabs_extra_body": {"conversation_id": call}}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def agent(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def texts_of(bridge: Any, call: str) -> list[tuple[str, str]]:
    return [(user_text, agent_text) for _, user_text, agent_text, _ in bridge.read_saved_turns(call)]


@pytest.fixture
def model(nothing_left_behind: None) -> Iterator[ScriptedModel]:
    """Run the operator's model."""
    with ScriptedModel() as model:
        yield model


@pytest.fixture
def served(model: ScriptedModel, make_bridge: Callable[..., Any]) -> Iterator[ServedBridge]:
    """Serve a bridge in front of the model."""
    served = ServedBridge(
        make_bridge(
            BRIDGE_MODEL_URL=model.base_url + "/",
            BRIDGE_MODEL_SECRET=SECRET,
            BRIDGE_MODEL_KEY=KEY,
            BRIDGE_MODEL_TIMEOUT_MS="10000",
        )
    )
    yield served
    served.close()


@pytest.mark.parametrize("platform", ["vapi", "elevenlabs"])
def test_memories_are_put_in_and_the_turn_is_kept(served: ServedBridge, model: ScriptedModel, platform: str) -> None:
    model.words = ["Your ", "boots ", "are ", "size ", "nine."]
    served.bridge.say("CAearlier", 1, "My boots are size nine.")
    assert served.ask([SYSTEM, GREETING, user("Which size are my boots?")], "call-1", platform) == "".join(model.words)

    [request] = model.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    system, *others = request["messages"]
    assert system["role"] == "system"
    assert system["content"].startswith("You are Juno.\n\n")
    assert "My boots are size nine." in system["content"]
    assert others == [GREETING, user("Which size are my boots?")]
    assert set(request) - {"path", "headers"} == {"model", "messages", "stream", "temperature"}
    assert request["model"] == "gpt-of-the-platform"
    eventually(lambda: texts_of(served.bridge, "call-1") == [("Which size are my boots?", "Your boots are size nine.")])
    eventually(lambda: served.bridge.count(platform=platform, outcome="kept"))


def test_numbers_of_callers_do_not_reach_the_model(served: ServedBridge, model: ScriptedModel) -> None:
    served.ask([user("Hello?")], "call-numbers", extra_body={**vapi_fields("call-numbers"), "user": NUMBER})
    served.ask([user("Hello?")], "call-numbers-2", "elevenlabs")
    assert NUMBER not in json.dumps(model.requests)


def test_an_answer_is_passed_on_while_it_is_made(served: ServedBridge, model: ScriptedModel) -> None:
    model.words = ["First, ", model.PAUSE, "then."]
    with served.stream([user("Go on.")], "call-slow") as chunks:
        first = next(iter(chunks))  # while the model is waiting
        assert first.choices[0].delta.content == "First, "
        model.goes_on.set()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "then."


def test_a_turn_is_kept_as_far_as_it_was_said_if_the_platform_hangs_up(
    served: ServedBridge, model: ScriptedModel
) -> None:
    model.words = ["I will ", "see to it.", model.PAUSE, *[" I call you back on Friday."] * 2000]
    with served.stream([user("When?")], "call-hang-up") as chunks:
        heard = [next(iter(chunks)).choices[0].delta.content for _ in range(2)]
    assert heard == ["I will ", "see to it."]
    model.goes_on.set()
    [(said, answer)] = eventually(lambda: texts_of(served.bridge, "call-hang-up"))
    assert said == "When?"
    assert answer.startswith("I will see to it.")
    assert len(answer) < sum(map(len, model.words))
    assert model.hung_up.wait(30)  # it does not go on for a caller who is gone


def test_what_the_caller_heard_of_the_last_answer_is_in_the_next_request(
    served: ServedBridge, model: ScriptedModel
) -> None:
    model.words = ["I will see to it.", " I call you back on Friday."]
    served.ask([SYSTEM, user("When?")], "call-heard")
    eventually(lambda: texts_of(served.bridge, "call-heard"))
    model.words = ["Good."]
    served.ask([SYSTEM, user("When?"), agent("I will see to it..."), user("Yes, please.")], "call-heard")
    expected = [("When?", "I will see to it..."), ("Yes, please.", "Good.")]
    eventually(lambda: sorted(texts_of(served.bridge, "call-heard")) == expected)
    assert "Friday" not in served.bridge.call_tool("When do you call me back?")


def test_a_caller_who_goes_on_speaking_has_said_one_turn(served: ServedBridge, model: ScriptedModel) -> None:
    model.words = ["Which ", model.PAUSE, *["colour? "] * 2000]
    with served.stream([user("My boots are")], "call-goes-on") as chunks:
        next(iter(chunks))
    model.words = ["Noted."]
    served.ask([user("My boots are"), user("size nine.")], "call-goes-on")
    model.goes_on.set()
    eventually(lambda: texts_of(served.bridge, "call-goes-on") == [("My boots are size nine.", "Noted.")])
    assert model.hung_up.wait(30)
    eventually(lambda: served.bridge.count(platform="vapi", outcome="superseded"))
    assert texts_of(served.bridge, "call-goes-on") == [("My boots are size nine.", "Noted.")]


def test_an_answer_that_ends_after_the_next_turn_changes_nothing(served: ServedBridge, model: ScriptedModel) -> None:
    model.words = ["I will see to it.", model.PAUSE, *[" I call you back on Friday."] * 2000]
    with served.stream([user("When?")], "call-late") as chunks:
        next(iter(chunks))
    model.words = ["Good."]
    served.ask([user("When?"), agent("I will see"), user("Fine.")], "call-late")
    expected = [("Fine.", "Good."), ("When?", "I will see")]
    eventually(lambda: sorted(texts_of(served.bridge, "call-late")) == expected)
    before = served.bridge.count(platform="vapi", outcome="superseded")
    model.goes_on.set()
    eventually(lambda: served.bridge.count(platform="vapi", outcome="superseded") > before)
    assert sorted(texts_of(served.bridge, "call-late")) == expected


def test_messages_without_the_beginning_of_the_call_overwrite_no_turn(
    served: ServedBridge, model: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    history = [user("My boots are size nine."), agent("Noted."), user("And my hat is green.")]
    served.ask(history, "call-cut")
    eventually(lambda: len(texts_of(served.bridge, "call-cut")) == 2)
    kept = sorted(texts_of(served.bridge, "call-cut"))
    assert served.ask([user("Goodbye.")], "call-cut") == "Yes."
    eventually(lambda: "outcome=cut_history call=call-cut" in caplog.text)
    assert sorted(texts_of(served.bridge, "call-cut")) == kept


def test_tool_calls_are_passed_through_and_the_turn_goes_on_with_their_results(
    served: ServedBridge, model: ScriptedModel
) -> None:
    tools = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
    model.words = ["Let me look."]
    model.tool_calls = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"id"'}},
        {"index": 0, "function": {"arguments": ": 7}"}},
    ]
    messages: Messages = [SYSTEM, user("Where is my order?")]
    with served.stream(messages, "call-tools", tools=tools, tool_choice="auto") as chunks:
        received = [chunk.choices[0] for chunk in chunks]
    deltas = [call for choice in received for call in choice.delta.tool_calls or []]
    assert deltas[0].function.name == "find_order"
    assert "".join(delta.function.arguments for delta in deltas) == '{"id": 7}'
    assert received[-1].finish_reason == "tool_calls"
    assert model.requests[0]["tools"] == tools

    model.words, model.tool_calls = ["It is in Leeds."], []
    call = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"id": 7}'}}
    messages += [
        {**agent("Let me look."), "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "in Leeds"},
    ]
    assert served.ask(messages, "call-tools", tools=tools) == "It is in Leeds."
    assert model.requests[1]["messages"][-2:] == messages[-2:]
    expected = [("Where is my order?", "Let me look. It is in Leeds.")]
    eventually(lambda: texts_of(served.bridge, "call-tools") == expected)


def test_an_answer_in_one_piece_is_kept_too(served: ServedBridge, model: ScriptedModel) -> None:
    model.words = ["In one piece."]
    reply = served.client().chat.completions.create(
        model="m", messages=[user("Hello?")], extra_body=vapi_fields("call-whole")
    )
    assert reply.choices[0].message.content == "In one piece."
    assert texts_of(served.bridge, "call-whole") == [("Hello?", "In one piece.")]


@pytest.mark.parametrize("platform", ["vapi", "elevenlabs"])
def test_a_call_that_was_kept_live_is_not_kept_again_when_it_is_reported(
    served: ServedBridge, model: ScriptedModel, platform: str
) -> None:
    call, history = f"call-live-{platform}", [SYSTEM, GREETING]
    for question, answer in (("My boots are size nine.", "Noted."), ("And my hat?", "Size seven.")):
        model.words = [answer]
        history.append(user(question))
        served.ask(history, call, platform)
        history.append(agent(answer))
    eventually(lambda: len(texts_of(served.bridge, call)) == 2)
    lines = [("agent", "Juno here."), ("user", "My boots are size nine."), ("agent", "Noted."),
             ("user", "And my hat?"), ("agent", "Size seven.")]  # fmt: skip
    for _ in range(2):
        if platform == "vapi":
            report = vapi_report(call, *(("bot" if role == "agent" else role, text) for role, text in lines))
            assert served.bridge.post_vapi(report).status_code == 200
        else:
            assert served.bridge.post_elevenlabs(elevenlabs_event(call, *lines)).status_code == 200
    assert sorted(texts_of(served.bridge, call)) == [
        ("", "Juno here."), ("And my hat?", "Size seven."), ("My boots are size nine.", "Noted."),
    ]  # fmt: skip
    assert served.bridge.count_saved_events(call) == 3
    assert served.bridge.read_end_reasons(call)


def test_a_report_without_a_number_belongs_to_the_caller_of_the_live_call(
    served: ServedBridge, model: ScriptedModel
) -> None:
    served.ask([user("My boots are size nine.")], "call-known")
    eventually(lambda: texts_of(served.bridge, "call-known"))
    lines = [("user", "My boots are size nine."), ("bot", "Yes."), ("user", "Goodbye.")]
    assert served.bridge.post_vapi(vapi_report("call-known", *lines, number=None)).status_code == 200
    assert texts_of(served.bridge, "call-known") == [("My boots are size nine.", "Yes."), ("Goodbye.", "")]


def test_headers_may_name_the_conversation_and_the_caller(served: ServedBridge, model: ScriptedModel) -> None:
    headers = {"X-Conversation-Id": "conv-headers", "X-Caller-Id": "tel:+1-415-555-0123"}
    served.ask([user("Hello?")], "", "elevenlabs", extra_body={}, extra_headers=headers)
    eventually(lambda: texts_of(served.bridge, "conv-headers") == [("Hello?", "Yes.")])


def test_fields_that_are_not_needed_may_have_any_value(served: ServedBridge, model: ScriptedModel) -> None:
    for number, fields in enumerate(
        ({"call": None}, {"call": 7, "metadata": [7]}, {"customer": "x", "metadata": None})
    ):
        assert served.ask([user("Hello?")], f"any-{number}", extra_body=fields) == "Yes."
    parts = [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert served.ask([{"role": "user", "content": parts}], "call-parts") == "Yes."
    assert served.ask([{"role": "user", "content": None}], "call-nothing") == "Yes."
    eventually(lambda: texts_of(served.bridge, "call-parts") == [("Hello", "Yes.")])
    assert not texts_of(served.bridge, "call-nothing")


def test_without_a_known_caller_or_call_the_model_still_answers(served: ServedBridge, model: ScriptedModel) -> None:
    counts = [served.bridge.count(platform="vapi", outcome=name) for name in ("no_caller", "no_call_id")]
    assert served.ask([user("Hello?")], "call-x", extra_body=vapi_fields("call-x", number=None)) == "Yes."
    assert served.ask([user("Hello?")], "", extra_body={"customer": {"number": NUMBER}}) == "Yes."
    after = [served.bridge.count(platform="vapi", outcome=name) for name in ("no_caller", "no_call_id")]
    assert after == [count + 1 for count in counts]


def test_a_wrong_secret_is_refused_before_the_model_is_asked(served: ServedBridge, model: ScriptedModel) -> None:
    for secret in ("wrong", SECRET + "x"):
        with pytest.raises(openai.AuthenticationError):
            served.client(secret=secret).chat.completions.create(model="m", messages=[user("Hello?")])
    assert not model.requests


def test_without_a_model_there_is_no_route(make_bridge: Callable[..., Any]) -> None:
    bridge = make_bridge()
    assert bridge.http.post("/vapi/v1/chat/completions", json={"messages": []}).status_code == 404


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"messages": "x"}', b'{"messages": ["x"]}', b'{"messages": null}']
)
def test_a_request_of_the_wrong_shape_is_answered_with_400(served: ServedBridge, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    assert served.bridge.http.post("/vapi/v1/chat/completions", data=body, headers=headers).status_code == 400


def test_the_operator_may_choose_the_model(model: ScriptedModel, make_bridge: Callable[..., Any]) -> None:
    served = ServedBridge(
        make_bridge(
            BRIDGE_MODEL_URL=model.base_url, BRIDGE_MODEL_SECRET=SECRET, BRIDGE_MODEL_NAME="gpt-of-the-operator"
        )
    )
    served.ask([user("Hello?")], "call-named")
    served.close()
    assert model.requests[0]["model"] == "gpt-of-the-operator"
    assert "Authorization" not in model.requests[0]["headers"]


@pytest.mark.parametrize(("status", "expected"), [(400, 400), (401, 502), (403, 502), (429, 429), (500, 500)])
def test_an_error_of_the_model_is_passed_on(
    served: ServedBridge, model: ScriptedModel, status: int, expected: int
) -> None:
    before = served.bridge.count(platform="vapi", outcome="model_failed")
    model.status = status
    with pytest.raises(openai.APIStatusError) as raised:
        served.ask([user("Hello?")], f"call-status-{status}")
    assert raised.value.status_code == expected
    assert served.bridge.count(platform="vapi", outcome="model_failed") == before + 1
    assert texts_of(served.bridge, f"call-status-{status}") == [("Hello?", "")]  # the caller has said it


def test_a_model_that_is_away_is_answered_with_502(make_bridge: Callable[..., Any]) -> None:
    with ScriptedModel() as model:
        url = model.base_url
    served = ServedBridge(make_bridge(BRIDGE_MODEL_URL=url, BRIDGE_MODEL_SECRET=SECRET))
    with pytest.raises(openai.InternalServerError) as raised:
        served.ask([user("Hello?")], "call-away")
    served.close()
    assert raised.value.status_code == 502


def test_a_model_that_is_silent_is_answered_with_504(model: ScriptedModel, make_bridge: Callable[..., Any]) -> None:
    served = ServedBridge(
        make_bridge(BRIDGE_MODEL_URL=model.base_url, BRIDGE_MODEL_SECRET=SECRET, BRIDGE_MODEL_TIMEOUT_MS="300")
    )
    model.words = [model.PAUSE, "Late."]
    with pytest.raises(openai.InternalServerError) as raised:
        served.client().chat.completions.create(
            model="m", messages=[user("Hello?")], extra_body=vapi_fields("call-504")
        )
    assert raised.value.status_code == 504
    served.close()


@pytest.mark.parametrize("fault", ["pause", "break"])
def test_a_model_that_stops_in_the_middle_is_an_error_and_what_it_said_is_kept(
    model: ScriptedModel, make_bridge: Callable[..., Any], fault: str
) -> None:
    served = ServedBridge(
        make_bridge(BRIDGE_MODEL_URL=model.base_url, BRIDGE_MODEL_SECRET=SECRET, BRIDGE_MODEL_TIMEOUT_MS="500")
    )
    model.words = ["I will see to it.", model.PAUSE if fault == "pause" else model.BREAK]
    if fault == "pause":
        with pytest.raises(openai.APIError, match="the model stopped"):
            served.ask([user("When?")], "call-stops")
    else:
        assert served.ask([user("When?")], "call-stops") == "I will see to it."
    [turn] = eventually(lambda: texts_of(served.bridge, "call-stops"))
    served.close()
    assert turn == ("When?", "I will see to it.")


def test_an_unresponsive_memory_does_not_delay_the_answer(
    model: ScriptedModel, make_bridge: Callable[..., Any]
) -> None:
    served = ServedBridge(
        make_bridge(BRIDGE_MODEL_URL=model.base_url, BRIDGE_MODEL_SECRET=SECRET, BRIDGE_RECALL_MS="1")
    )
    served.bridge.app.extensions["memory"]._has_searched = True
    assert served.ask([user("Hello?")], "call-cold") == "Yes."
    served.close()
