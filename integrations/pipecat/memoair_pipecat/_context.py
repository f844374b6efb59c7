"""The context of the language model: the recalled text inserted into it, and the caller's words read from it."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from pipecat.processors.aggregators.llm_context import LLMContext

from memoair_voice.integration import fence_text, is_fenced

# A turn marker of Pipecat has no letter or digit: a circle, half filled or empty, or a tick.
_WORD = re.compile(r"\w")


def make_recall_message(context_text: str) -> dict[str, str]:
    """Return the recalled text as a message of the caller's role, declared as data without authority."""
    return {"role": "user", "content": fence_text(context_text)}


def make_instructions_message(text: str) -> dict[str, str]:
    """Return the instructions of the agent as a message. Unlike recalled text, they have authority."""
    return {"role": "system", "content": text}


class RecalledContext(LLMContext):
    """A view of a conversation's context for the language model: instructions first, recalled text before the question.

    The view stores nothing itself. What a service or a tool reads or changes through it is read or changed in the
    conversation's own context, which never contains the recalled text, nor the instructions.
    """

    def __init__(
        self, conversation: LLMContext, recall_message: dict[str, str] | None, instructions: str | None = None
    ) -> None:  # does not call LLMContext.__init__, which would create a second list of messages
        self.__dict__["_conversation"] = conversation
        self.__dict__["_recall_message"] = recall_message
        self.__dict__["_instructions"] = None if instructions is None else make_instructions_message(instructions)

    def __getattr__(self, name: str) -> Any:
        if "_conversation" not in self.__dict__:  # a new object that the copy module has not filled yet
            raise AttributeError(name)
        return getattr(self.__dict__["_conversation"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_conversation"], name, value)

    def get_messages(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return a new list: the instructions, and the messages with the recalled text before the caller's last one."""
        messages = list(self.__dict__["_conversation"].get_messages(*args, **kwargs))
        if (instructions := self.__dict__["_instructions"]) is not None:
            messages.insert(0, dict(instructions))
        if self.__dict__["_recall_message"] is None:
            return messages
        position = next(
            (index for index in reversed(range(len(messages))) if _is_user_message(messages[index])), len(messages)
        )
        messages.insert(position, dict(self.__dict__["_recall_message"]))
        return messages

    def set_messages(self, messages: list[Any]) -> None:
        """Replace the conversation's messages, without what `get_messages` may have added."""
        instructions = self.__dict__["_instructions"]
        own = messages[1:] if instructions is not None and messages[:1] == [instructions] else messages
        self.__dict__["_conversation"].set_messages([message for message in own if not _is_recall_message(message)])


class UserMessageTracker:
    """Finds what the caller has said since the context was last read.

    Not every message of the caller's role was said by the caller: Pipecat adds its summary of the conversation with
    this role, and an application may insert messages of its own between earlier ones.
    """

    def __init__(self) -> None:
        self._known_messages: list[Any] = []
        self._unsaid_messages: list[Any] = []  # of the caller's role, but not said by the caller
        self._summaries: set[str] = set()
        self._markers: set[str] = set()

    def add_marker(self, marker: str) -> None:
        """Treat a text as a marker, with which the model says that the caller has not finished."""
        self._markers.add(marker.strip())

    def add_summary(self, summary: str) -> None:
        """Treat the message at the start of the conversation as unsaid as soon as it contains this text."""
        if summary.strip():
            self._summaries.add(summary.strip())

    def mark_summary(self, context: LLMContext) -> None:
        """Treat the message at the start of the conversation as a summary, unless it was there before."""
        messages = conversation_messages(context)
        for message in messages[_head_index(messages) :][:1]:
            if _is_user_message(message) and not _is_among(message, self._known_messages):
                self._unsaid_messages.append(message)

    def skip(self, context: LLMContext, *, keep_unanswered: bool = False) -> None:
        """Treat the messages of a context as known, optionally except those that have no answer yet."""
        messages = conversation_messages(context)
        self._known_messages = messages[: self._count_answered(messages)] if keep_unanswered else messages

    def read_new_texts(self, context: LLMContext) -> list[str]:
        """Return what the caller has said since the last call.

        Messages are compared by identity and not by content, because a caller may say "yes" twice. What the caller says
        is appended, so a new message before known ones was not said now. If the context was rebuilt from copies, a copy
        is recognized by its content and its place.
        """
        messages = conversation_messages(context)
        self._find_summary(messages)
        kept = self._find_kept(messages)
        last_kept = max(kept, default=-1)
        texts = []
        for index, message in enumerate(messages):
            if index in kept or not self._is_said(message):
                continue
            if index < last_kept:
                self._unsaid_messages.append(message)
            elif text := _text_of(message):
                texts.append(text)
        self._known_messages = messages
        return texts

    def find_question(self, context: LLMContext) -> tuple[Any, str]:
        """Return the caller's last unanswered message, if any, and the text of all unanswered ones.

        A marker for an unfinished turn is no answer, and neither is the agent's encouragement to go on after it: the
        words before it are the first half of the sentence that continues.
        """
        messages = conversation_messages(context)
        self._find_summary(messages)
        unanswered = [message for message in messages[self._count_answered(messages) :] if self._is_said(message)]
        first_half = self._find_first_half(messages[: self._count_answered(messages)]) if unanswered else []
        query = " ".join(filter(None, map(_text_of, [*first_half, *unanswered])))
        return (unanswered[-1] if unanswered else None), query

    def _find_kept(self, messages: Sequence[Any]) -> set[int]:
        """Return the indexes of the messages that were known before, or are copies of known ones.

        A message that has no answer is a copy only if the message before it is one as well: a caller may repeat a word.
        """
        known_ids, present_ids = set(map(id, self._known_messages)), set(map(id, messages))
        kept = {index for index, message in enumerate(messages) if id(message) in known_ids}
        removed = [index for index, message in enumerate(self._known_messages) if id(message) not in present_ids]
        last_reply = _last_index(messages, lambda message: _role_of(message) == "assistant")
        for index, message in enumerate(messages):
            if index not in kept:
                for position in removed:
                    if self._known_messages[position] == message and (
                        index <= last_reply or _before(self._known_messages, position) == _before(messages, index)
                    ):
                        removed.remove(position)
                        kept.add(index)
                        break
        return kept

    def _find_summary(self, messages: Sequence[Any]) -> None:
        """Note the message at the start of the conversation if it contains a summary that Pipecat has made."""
        for message in messages[_head_index(messages) :][:1]:
            if self._is_said(message) and any(summary in _text_of(message) for summary in self._summaries):
                self._unsaid_messages.append(message)

    def _is_said(self, message: Any) -> bool:
        return _is_user_message(message) and not _is_among(message, self._unsaid_messages)

    def _is_marker(self, message: Any) -> bool:
        """Return whether a message of the agent only says that the caller has not finished."""
        if _role_of(message) != "assistant" or message.get("tool_calls"):
            return False
        text = _text_of(message)
        return bool(text) and (text in self._markers or not _WORD.search(text))

    def _count_answered(self, messages: Sequence[Any]) -> int:
        """Return how many messages there are up to the last reply, the reply included."""
        return 1 + _last_index(
            messages,
            lambda message: _role_of(message) in ("assistant", "tool") and not self._is_marker(message),
        )

    def _find_first_half(self, answered: Sequence[Any]) -> list[Any]:
        """Return the caller's messages that ended with a marker and got only an encouragement for an answer."""
        before_reply = _drop_instructions(answered[:-1])
        if not before_reply or not self._is_marker(before_reply[-1]):
            return []
        start = self._count_answered(before_reply)
        words = [message for message in before_reply[start:] if self._is_said(message)]
        return [*self._find_first_half(before_reply[:start]), *words]


def conversation_messages(context: LLMContext) -> list[Any]:
    """Return the messages of the conversation itself as a new list, without recalled text."""
    while isinstance(context, RecalledContext):
        context = context.__dict__["_conversation"]
    return [message for message in context.get_messages() if not _is_recall_message(message)]


def find_question(context: LLMContext) -> tuple[Any, str]:
    """Return the caller's last unanswered message, if any, and the text of all unanswered ones."""
    return UserMessageTracker().find_question(context)


def speaker_texts(context: LLMContext) -> list[str]:
    """Return what the context holds of the conversation: the messages of each speaker joined to one text."""
    texts: dict[str, list[str]] = {"user": [], "assistant": []}
    for message in conversation_messages(context):
        if (role := _role_of(message)) in texts:
            texts[role].append(_text_of(message))
    return [" ".join(parts) for parts in texts.values()]


def _last_index(messages: Sequence[Any], predicate: Callable[[Any], bool]) -> int:
    """Return the index of the last message that a predicate holds for, or -1."""
    return next((index for index in reversed(range(len(messages))) if predicate(messages[index])), -1)


def _head_index(messages: Sequence[Any]) -> int:
    """Return where a conversation begins: after the system message, if it is the first one, as Pipecat counts."""
    return 1 if messages and _role_of(messages[0]) == "system" else 0


def _is_among(message: Any, messages: Sequence[Any]) -> bool:
    return any(message is other for other in messages)


def _before(messages: Sequence[Any], index: int) -> Any:
    return messages[index - 1] if index else None


def _drop_instructions(messages: Sequence[Any]) -> Sequence[Any]:
    """Return the messages without instructions to the model at the end."""
    return messages[: 1 + _last_index(messages, lambda message: _role_of(message) not in ("developer", "system"))]


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
