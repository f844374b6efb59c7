"""The messages of a chat completion: which turn of the call they have reached, and memories put in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memoair_voice.integration import fence_text

# What an OpenAI-compatible model may be asked. Platforms add fields of their own, with numbers and names of callers in
# them, which a model neither needs nor accepts.
_MODEL_FIELDS = frozenset(
    """model messages stream stream_options temperature top_p max_tokens max_completion_tokens n stop seed
    presence_penalty frequency_penalty logit_bias logprobs top_logprobs response_format tools tool_choice
    parallel_tool_calls functions function_call reasoning_effort verbosity service_tier prediction""".split()
)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class ChatTurn:
    """A turn within the messages: what the caller said, and what the agent has said since."""

    user_text: str = field(repr=False)
    assistant_text: str = field(repr=False)


def text_of(message: Mapping[str, Any]) -> str:
    """Return what a message says: a string, or a list of parts with text."""
    for name in ("content", "message"):
        value = message.get(name)
        if isinstance(value, list):
            parts = (part.get("text") for part in value if isinstance(part, dict))
            value = " ".join(part for part in parts if isinstance(part, str))
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def list_turns(messages: Sequence[Mapping[str, Any]]) -> list[ChatTurn]:
    """Return the turns of a call, numbered as those of its report: the caller's first words begin turn 1."""
    texts: list[tuple[list[str], list[str]]] = [([], [])]
    for message in messages:
        role, text = message.get("role"), text_of(message)
        if role == "user" and text:
            if texts[-1][1] or len(texts) == 1:  # the agent has spoken since, or no one has yet
                texts.append(([], []))
            texts[-1][0].append(text)
        elif role == "assistant" and text:
            texts[-1][1].append(text)
    return [ChatTurn(" ".join(user), " ".join(assistant)) for user, assistant in texts]


def make_model_request(body: Mapping[str, Any], model: str, memories: str) -> dict[str, Any]:
    """Return the request to the model: the platform's, with memories in the first system message.

    Many models accept a system message only in front of all others, so it is not put beside the caller's words.
    """
    request = {name: value for name, value in body.items() if name in _MODEL_FIELDS}
    if model:
        request["model"] = model
    if memories:
        fenced = fence_text(memories)
        messages = list(body["messages"])
        first = messages[0] if messages else {}
        if first.get("role") in ("system", "developer"):
            messages[0] = {**first, "content": f"{text_of(first)}\n\n{fenced}".strip()}
        else:
            messages.insert(0, {"role": "system", "content": fenced})
        request["messages"] = messages
    return request


def is_heard_part(heard: str, answer: str) -> bool:
    """Return whether a text is the beginning of an answer, which the caller interrupted. Punctuation is ignored."""
    heard_words, words = _WORD.findall(heard.casefold()), _WORD.findall(answer.casefold())
    return len(heard_words) < len(words) and words[: len(heard_words)] == heard_words
