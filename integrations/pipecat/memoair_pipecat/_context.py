"""The context of the language model: the recalled text inserted into it, and the caller's words read from it."""

from collections.abc import Sequence
from typing import Any

from pipecat.processors.aggregators.llm_context import LLMContext

from memoair_voice.integration import fence_text, is_fenced


def make_recall_message(context_text: str) -> dict[str, str]:
    """Return the recalled text as a message of the caller's role, declared as data without authority."""
    return {"role": "user", "content": fence_text(context_text)}


class RecalledContext(LLMContext):
    """A view of a conversation's context for the language model, with the recalled text before the caller's words.

    The view stores nothing itself. What a service or a tool reads or changes through it is read or changed in the
    conversation's own context, which never contains the recalled text.
    """

    def __init__(
        self, conversation: LLMContext, recall_message: dict[str, str]
    ) -> None:  # does not call LLMContext.__init__, which would create a second list of messages
        self.__dict__["_conversation"] = conversation
        self.__dict__["_recall_message"] = recall_message

    def __getattr__(self, name: str) -> Any:
        if "_conversation" not in self.__dict__:  # a new object that the copy module has not filled yet
            raise AttributeError(name)
        return getattr(self.__dict__["_conversation"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_conversation"], name, value)

    def get_messages(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the conversation's messages as a new list, with the recalled text before the caller's last message."""
        messages = list(self.__dict__["_conversation"].get_messages(*args, **kwargs))
        position = next(
            (index for index in reversed(range(len(messages))) if _is_user_message(messages[index])), len(messages)
        )
        messages.insert(position, dict(self.__dict__["_recall_message"]))
        return messages

    def set_messages(self, messages: list[Any]) -> None:
        """Replace the conversation's messages, without the recalled text that `get_messages` may have added."""
        self.__dict__["_conversation"].set_messages(
            [message for message in messages if not _is_recall_message(message)]
        )


class UserMessageTracker:
    """Finds what the caller has said since the context was last read."""

    def __init__(self) -> None:
        self._known_messages: list[Any] = []

    def skip(self, context: LLMContext, *, keep_unanswered: bool = False) -> None:
        """Treat the messages of a context as known, optionally except those that have no answer yet."""
        messages = conversation_messages(context)
        self._known_messages = (
            messages[: len(messages) - len(_unanswered_messages(messages))] if keep_unanswered else messages
        )

    def read_new_texts(self, context: LLMContext) -> list[str]:
        """Return what the caller has said since the last call.

        Messages are compared by identity and not by content, because a caller may say "yes" twice.
        """
        messages = conversation_messages(context)
        known_ids = {id(message) for message in self._known_messages}
        present_ids = {id(message) for message in messages}
        removed = [
            message for message in self._known_messages if id(message) not in present_ids and _is_user_message(message)
        ]
        last_reply = max(
            (index for index, message in enumerate(messages) if _role_of(message) == "assistant"), default=-1
        )
        texts = []
        for index, message in enumerate(messages):
            if id(message) in known_ids or not _is_user_message(message):
                continue
            if index < last_reply and message in removed:  # the context was rebuilt from copies
                removed.remove(message)
                continue
            if text := _text_of(message):
                texts.append(text)
        self._known_messages = messages
        return texts


def conversation_messages(context: LLMContext) -> list[Any]:
    """Return the messages of the conversation itself as a new list, without recalled text."""
    while isinstance(context, RecalledContext):
        context = context.__dict__["_conversation"]
    return [message for message in context.get_messages() if not _is_recall_message(message)]


def find_question(context: LLMContext) -> tuple[Any, str]:
    """Return the caller's last unanswered message, if any, and the text of all unanswered ones."""
    unanswered = _unanswered_messages(conversation_messages(context))
    return (unanswered[-1] if unanswered else None), " ".join(filter(None, map(_text_of, unanswered)))


def _unanswered_messages(messages: Sequence[Any]) -> list[Any]:
    """Return the caller's messages after the last reply."""
    unanswered: list[Any] = []
    for message in reversed(messages):
        if _role_of(message) in ("assistant", "tool"):
            break
        if _is_user_message(message):
            unanswered.insert(0, message)
    return unanswered


def _role_of(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None  # other objects are in a service's own format


def _is_user_message(message: Any) -> bool:
    return bool(_role_of(message) == "user")


def _is_recall_message(message: Any) -> bool:
    return _is_user_message(message) and is_fenced(message.get("content"))


def _text_of(message: Any) -> str:
    content = message.get("content")
    if isinstance(content, list):  # text parts mixed with images or files
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = " ".join(part for part in parts if isinstance(part, str))
    return content.strip() if isinstance(content, str) else ""
