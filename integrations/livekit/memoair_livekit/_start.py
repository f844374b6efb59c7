"""What an agent prepares for a session: a briefing and a tool for speech models, and names for the recognizer."""

from collections.abc import Sequence
from typing import Any

from livekit.agents import Agent, llm

from memoair_livekit._context import is_recall_message, make_recall_message, remove_recall
from memoair_livekit._log import log
from memoair_livekit._memory import CallMemory
from memoair_livekit._realtime import (
    BRIEFING_LANES,
    add_briefing,
    can_change,
    has_search_tool,
    is_briefed,
    is_speech_model,
)
from memoair_voice import SearchResult


async def find_briefing(memory: CallMemory) -> SearchResult | None:
    """Return what is known about the caller before anything is said, once the memory is open; None if it failed."""
    await memory.wait_opened()
    return await memory.search("", lanes=BRIEFING_LANES)


def find_model(agent: Agent) -> Any:
    """Return the language model or speech model of an agent, which is that of its session if it has none."""
    session = find_session(agent)
    return next((model for model in (agent.llm, session and session.llm) if _is_model(model)), None)


async def offer_tool(agent: Agent, tool: Any, model: Any) -> None:
    """Add the search tool to an agent, unless it has one.

    Args:
        agent: The agent. If it is not running, the tool reaches the model at the start.
        tool: The tool.
        model: The speech model; None if it is not known yet.
    """
    if has_search_tool(agent.tools):
        return
    if find_session(agent) is not None and not can_change(model, "tools"):
        log.warning("the speech model accepts no tools while it runs: pass search_tool=True: action=tool_too_late")
    else:
        await agent.update_tools([*agent.tools, tool])


async def brief(agent: Agent, model: Any, context_text: str) -> None:
    """Tell a speech model what is known about the caller: in its instructions, or else in its context.

    Args:
        agent: The agent. If it is not running, everything reaches the model at the start.
        model: The speech model; None if it is not known yet.
        context_text: What is known.
    """
    is_running = find_session(agent) is not None
    if isinstance(agent.instructions, str) and (not is_running or can_change(model, "instructions")):
        await agent.update_instructions(add_briefing(agent.instructions, context_text))
    elif not is_running or can_change(model, "chat_context"):
        chat_ctx = agent.chat_ctx.copy()
        remove_recall(chat_ctx)
        if context_text.strip():
            chat_ctx.items.append(make_recall_message(context_text))
        await agent.update_chat_ctx(chat_ctx)
    elif not is_briefed(str(agent.instructions)) and not any(map(is_recall_message, agent.chat_ctx.items)):
        log.warning(
            "the speech model accepts nothing while it runs: await agent.prepare_memory() before the session starts: "
            "action=briefing_too_late"
        )


def find_session(agent: Agent) -> Any:
    """Return the session of an agent, or None if it is not running."""
    try:
        return agent.session
    except RuntimeError:
        return None


def accepts_key_terms(agent: Agent) -> bool:
    """Return whether LiveKit and the recognizer of the session accept terms to listen for."""
    if (session := find_session(agent)) is None:
        return False
    recognizer = next((stt for stt in (agent.stt, session.stt) if hasattr(stt, "capabilities")), None)
    return hasattr(session, "keyterms") and bool(getattr(getattr(recognizer, "capabilities", 0), "keyterms", False))


def add_key_terms(agent: Agent, terms: Sequence[str]) -> None:
    """Let the recognizer listen for these terms, in addition to those of the application."""
    session: Any = agent.session
    if new_terms := [term for term in terms if term not in session.keyterms]:
        session.update_options(keyterms=[*session.keyterms, *new_terms])


def _is_model(model: Any) -> bool:
    return isinstance(model, llm.LLM) or is_speech_model(model)
