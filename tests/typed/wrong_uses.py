"""Wrong uses of the SDK, which are type-checked and never run.

Each line that ends in ``# wrong`` must be an error for mypy and pyright, and no other line may be one.
"""

from io import StringIO

from memoair_transcripts import Rejection, TranscriptTurn, read_transcript
from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemory
from memoair_voice_sync import (
    IndexBuildResult,
    MemoAirVoiceAgent,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    SearchResult,
)

WHO = {"id": "caller_42"}


def constructors() -> None:
    MemoAirVoiceClientSync(api_key="k", project_id="p")  # wrong
    MemoAirVoiceClientSync("k", "p", "a")  # wrong
    MemoAirVoiceClientSync(api_key=None, project_id="p", agent_id="a")  # wrong
    MemoAirVoiceClientSync(api_key="k", project_id="p", agent_id="a", max_concurrent_users="20")  # wrong
    MemoAirVoiceClientSync(api_key="k", project_id="p", agent_id="a", runtime_port_range=(7878,))  # wrong
    MemoAirVoiceClientSync(api_key="k", project_id="p", agent_id="a", cloud_url=None)  # wrong
    MemoAirVoiceClient(api_key="k", project_id="p")  # wrong
    MemoAirVoiceClient(api_key="k", project_id="p", agent_id=7)  # wrong
    MemoAirVoiceClient(api_key="k", project_id="p", agent_id="a", timeout=3)  # wrong
    MemoAirVoiceMemorySync(project_id="p")  # wrong
    MemoAirVoiceMemorySync(project_id="p", user_id="u", satham="medium")  # wrong
    MemoAirVoiceMemory(project_id="p", user_id="u", runtime_url=None)  # wrong
    MemoAirVoiceAgent(api_key="k", project_id="p")  # wrong
    MemoAirVoiceAgent.from_env().agent_id = "other"  # wrong
    MemoAirVoiceAgent.from_env({"MEMOAIR_API_KEY": 7})  # wrong


def calls(client: MemoAirVoiceClientSync) -> None:
    client.search_memory(user=WHO)  # wrong
    client.search_memory("boots", WHO)  # wrong
    client.search_memory("boots", user="caller_42")  # wrong
    client.search_memory("boots", user=WHO, lanes=1)  # wrong
    client.search_memory("boots", user=WHO, top_k=4)  # wrong
    client.search_memory("boots", user=WHO, timeout_ms="250")  # wrong
    client.search_memory("boots", user=WHO, timeout_s=1)  # wrong
    str(client.search_memory("boots", user=WHO).context_text)  # wrong
    client.search_memory("boots", user=WHO).contextText = ""  # wrong
    client.save_response("boots?", "Thirty days.", user=WHO)  # wrong
    client.save_response(user_text="boots?", user=WHO)  # wrong
    client.save_response(user_text=b"boots?", assistant_text="", user=WHO)  # wrong
    client.save_response(user_text="boots?", assistant_text="", user=WHO).upper()  # wrong
    client.create_index("faq")  # wrong
    client.create_index("faq", {"id": "1", "text": "x"})  # wrong
    str(client.create_index("faq", [{"id": "1", "text": "x"}]).chunks)  # wrong
    client.import_call(["turn"], user=WHO)  # wrong
    client.update_memory("m1", user=WHO, holds_from=20260302)  # wrong
    client.aclose()  # wrong
    client.session(user=WHO).after_turn("a", "b")  # wrong
    client.session(user=WHO, prompt="You are Juno.")  # wrong
    client.prompt(label=3)  # wrong
    client.report_outcome("CA1", "resolved", 1.0)  # wrong


async def awaited(client: MemoAirVoiceClient, memory: MemoAirVoiceMemory) -> None:
    str(client.search_memory("boots", user=WHO).contextText)  # wrong
    await client.search_memory("boots", user="caller_42")  # wrong
    await client.search_memory("boots", user=WHO, timeout="fast")  # wrong
    await client.save_response(user_text="boots?")  # wrong
    await client.close()  # wrong
    with client:  # wrong
        pass
    async with client.session(user=WHO):  # wrong
        pass
    await memory.after_turn("boots?", "Thirty days.")  # wrong
    tool = memory.search_memory_tool()
    text: str = tool("boots")  # wrong
    await tool(7)  # wrong
    tool.schema("assistants")  # wrong
    memory.to_openai_function(strict="yes")  # wrong
    text.strip()


def results(result: SearchResult, built: IndexBuildResult, error: MemoAirVoiceMemoryError) -> None:
    SearchResult(contextText="")  # wrong
    built.version + 1  # wrong
    error.status_code + 1  # wrong
    result.profile["name"]  # wrong
    MemoAirVoiceMemoryError(404, "not there")  # wrong


def transcripts() -> None:
    read_transcript(StringIO("Caller: Hi."), "call.txt")  # wrong
    for item in read_transcript(open("call.txt", "rb"), "call.txt"):  # noqa: PTH123, SIM115 - as applications do
        str(item.user_text)  # wrong
        Rejection("call.txt", 1)  # wrong
        TranscriptTurn(user_id="caller_42")  # wrong
