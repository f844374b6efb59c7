"""Groups what was said in a call into turns: the caller speaks, the agent answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from memoair_transcripts import Side

# Stands for the words of an answering machine, in a turn that was saved before it was known to be one. An empty text
# would take nothing back.
MACHINE_TEXT = "(An answering machine took the call.)"
_MAX_TURN_CHARS = 100_000  # a turn must fit into 1 MB


@dataclass(frozen=True)
class Utterance:
    """What one side says. ``at`` is the time, if the platform reports it."""

    side: Side
    text: str = field(repr=False)
    at: datetime | None = None


@dataclass(frozen=True)
class CallTurn:
    """A turn of a call.

    Attributes:
        id: Stays the same if the platform sends the turn again, so that it is saved once.
        number: Its number within the call.
        user_text: What the caller said.
        assistant_text: What the agent answered.
        at: When it was said.
        tool_calls: The tools that the agent called.
        metadata: What is saved with the turn.
    """

    id: str
    number: int
    user_text: str = field(repr=False)
    assistant_text: str = field(repr=False)
    at: datetime | None = None
    tool_calls: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


def make_turn_id(call_id: str, number: int) -> str:
    """Return the id of a turn. The caller's first words begin turn 1; what the agent says before them is turn 0.

    A turn that is saved during a call and again in the report of the call has the same number, so it is saved once.
    """
    return f"{call_id}:{number}"


def group_turns(
    call_id: str, utterances: Iterable[Utterance], *, is_answered_by_machine: bool = False
) -> list[CallTurn]:
    """Return the turns of a call. What an answering machine says is left out, which may leave a turn empty."""
    turns: list[CallTurn] = []
    for number, group in _number_groups(utterances):
        for part, (user_text, assistant_text) in enumerate(_split(group)):
            turn_id = make_turn_id(call_id, number) + (f".{part}" if part else "")
            if is_answered_by_machine:
                user_text = ""
            turns.append(CallTurn(turn_id, number, user_text, assistant_text, group[0].at))
    return turns


def _number_groups(utterances: Iterable[Utterance]) -> Iterator[tuple[int, list[Utterance]]]:
    group: list[Utterance] = []
    number = 0
    for utterance in utterances:
        if not utterance.text.strip():
            continue
        is_caller = utterance.side is Side.USER
        if is_caller and (not group or group[-1].side is Side.ASSISTANT):
            if group:
                yield number, group
            group, number = [], number + 1
        group.append(utterance)
    if group:
        yield number, group


def _split(group: list[Utterance]) -> Iterator[tuple[str, str]]:
    """Yield the texts of a turn: one pair, or several if it is too long for one."""
    user_text, assistant_text = (
        " ".join(utterance.text.strip() for utterance in group if utterance.side is side)
        for side in (Side.USER, Side.ASSISTANT)
    )
    yield user_text[:_MAX_TURN_CHARS], "" if len(user_text) > _MAX_TURN_CHARS else assistant_text[:_MAX_TURN_CHARS]
    for start in range(_MAX_TURN_CHARS, len(user_text), _MAX_TURN_CHARS):
        yield user_text[start : start + _MAX_TURN_CHARS], ""
    start = 0 if len(user_text) > _MAX_TURN_CHARS else _MAX_TURN_CHARS
    for position in range(start, len(assistant_text), _MAX_TURN_CHARS):
        yield "", assistant_text[position : position + _MAX_TURN_CHARS]
