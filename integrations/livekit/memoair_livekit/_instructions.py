"""The prompt as the instructions of an agent, also in a context that was made before the prompt was there."""

from collections.abc import Sequence

from livekit.agents import Agent, llm

from memoair_livekit._log import log
from memoair_livekit._realtime import can_change, is_speech_model, remove_briefing
from memoair_livekit._start import find_model, find_session

# LiveKit's id of the message with the instructions. The name of its constant has changed between versions.
_INSTRUCTIONS_ID = "lk.agent_task.instructions"


def are_instructions_of(present: str, texts: Sequence[str]) -> bool:
    """Return whether instructions are one of some texts, a briefing apart: others are the application's own."""
    return remove_briefing(present).rstrip() in {text.rstrip() for text in texts}


async def set_instructions(agent: Agent, text: str) -> None:
    """Give an agent its prompt, unless it has that already.

    Args:
        agent: The agent. If it is not running, the text reaches the model at the start.
        text: The prompt.
    """
    if remove_briefing(str(agent.instructions)) == text.rstrip() or agent.instructions == text:
        return
    model = find_model(agent)
    if find_session(agent) is not None and is_speech_model(model) and not can_change(model, "instructions"):
        log.warning(
            "the speech model accepts no instructions while it runs: await agent.prepare_memory() before the session "
            "starts: action=prompt_too_late"
        )
        return
    await agent.update_instructions(text)


def insert_instructions(chat_ctx: llm.ChatContext, text: str, replaced: str) -> llm.ChatContext:
    """Return a context with these instructions, if it was made before the agent had them.

    Args:
        chat_ctx: The context for the model.
        text: The instructions.
        replaced: The instructions of the agent before. Others are the application's own, and stay.
    """
    message = next((item for item in chat_ctx.items if item.id == _INSTRUCTIONS_ID), None)
    present = message.text_content or "" if isinstance(message, llm.ChatMessage) else ""
    if present == text or present not in ("", replaced):
        return chat_ctx
    chat_ctx = chat_ctx.copy()
    new = llm.ChatMessage(id=_INSTRUCTIONS_ID, role="system", content=[text])
    if message is not None and (created_at := getattr(message, "created_at", None)) is not None:
        new.created_at = created_at
    chat_ctx.items[:] = [new, *(item for item in chat_ctx.items if item.id != _INSTRUCTIONS_ID)]
    return chat_ctx
