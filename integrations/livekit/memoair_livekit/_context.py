"""The message with the recalled text: its position in the context."""

from typing import Literal
from uuid import uuid4

from livekit.agents import llm

from memoair_voice.integration import fence_text

RecallRole = Literal["system", "user"]
_ID_PREFIX = "memoair_recall_"
_JUST_BEFORE_S = 1e-6


def is_recall_message(item: llm.ChatItem) -> bool:
    """Return whether an item of a context is a message that `insert_recall` inserted."""
    return item.id.startswith(_ID_PREFIX)


def make_recall_message(context_text: str, role: RecallRole = "system") -> llm.ChatMessage:
    """Return the recalled text as a message, declared as data without authority."""
    return llm.ChatMessage(role=role, content=[fence_text(context_text)], id=f"{_ID_PREFIX}{uuid4().hex}")


def insert_recall(
    chat_ctx: llm.ChatContext, context_text: str, user_message: llm.ChatMessage, role: RecallRole = "system"
) -> None:
    """Insert the recalled text right before the caller's message, replacing any earlier recalled text.

    The caller's message need not be in the context yet. LiveKit inserts it later by its timestamp, and the recalled
    text is dated a microsecond earlier, so the message lands right after it.
    """
    remove_recall(chat_ctx)
    message = make_recall_message(context_text, role)
    index = next((i for i, item in enumerate(chat_ctx.items) if item.id == user_message.id), None)
    if (
        said_at := getattr(user_message, "created_at", None)
    ) is not None:  # livekit-agents 1.0 has no timestamps and appends
        message.created_at = said_at - _JUST_BEFORE_S
        if index is None:
            index = sum(item.created_at <= message.created_at for item in chat_ctx.items)
    chat_ctx.items.insert(len(chat_ctx.items) if index is None else index, message)


def remove_recall(chat_ctx: llm.ChatContext) -> None:
    """Remove the recalled text of an earlier turn from the context."""
    chat_ctx.items[:] = [item for item in chat_ctx.items if not is_recall_message(item)]


def find_message_to_answer(chat_ctx: llm.ChatContext) -> llm.ChatMessage | None:
    """Return the caller's message that is being answered, also for the parts of an answer around a tool call.

    Returns None if the agent speaks on its own initiative, as in a greeting or a `generate_reply` with instructions
    only.
    """
    without_prompts = [
        item for item in chat_ctx.items if not (item.type == "message" and item.role in ("system", "developer"))
    ]
    turns = [item for item in without_prompts if item.type in ("message", "function_call", "function_call_output")]
    if not turns or (turns[-1].type == "message" and turns[-1].role != "user"):
        return None
    return next((item for item in reversed(turns) if item.type == "message" and item.role == "user"), None)


def speaker_texts(chat_ctx: llm.ChatContext) -> list[str]:
    """Return what the context holds of the conversation: the messages of each speaker joined to one text."""
    texts: dict[str, list[str]] = {"user": [], "assistant": []}
    for item in chat_ctx.items:
        if item.type == "message" and item.role in texts and not is_recall_message(item):
            texts[item.role].append(item.text_content or "")
    return [" ".join(parts) for parts in texts.values()]
