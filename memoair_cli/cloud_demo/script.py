"""The scripts of the demo's phone lines, which ship with the package: who calls, and what a call can be about."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import attrs
import yaml

_TALKS = files("memoair_cli.cloud_demo") / "talks"
_DOCUMENTS = files("memoair_cli") / "transcripts"
_LINES = ("shop", "clinic")


def _to_texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class ScriptedTurn:
    """A turn of a talk, with slots such as ``{name}``.

    Attributes:
        says: What the caller may say.
        answers: What the agent may answer. What follows ``||`` is not heard, because the caller interrupts.
        tool: The tool that the agent calls before it answers: its name, and further fields.
        misheard: What the caller seemed to say, until it is corrected.
        speaker: Who speaks, if it is not the caller.
    """

    says: tuple[str, ...] = attrs.field(converter=_to_texts)
    answers: tuple[str, ...] = attrs.field(converter=_to_texts)
    tool: Mapping[str, str] | None = None
    misheard: str | None = None
    speaker: str | None = None


def _to_turns(rows: Sequence[Mapping[str, Any]]) -> tuple[ScriptedTurn, ...]:
    return tuple(ScriptedTurn(**row) for row in rows)


@attrs.frozen
class Talk:
    """What a call can be about; ``talks/shop.yaml`` explains the fields."""

    turns: tuple[ScriptedTurn, ...] = attrs.field(converter=_to_turns)
    opens: bool = False
    needs: tuple[str, ...] = attrs.field(default=(), converter=_to_texts)
    sets: Mapping[str, str] = attrs.field(factory=dict)
    drops: tuple[str, ...] = attrs.field(default=(), converter=_to_texts)
    outbound: bool = False
    weight: float = 1.0


@attrs.frozen
class PhoneLine:
    """A phone line and its callers.

    Attributes:
        name: What is on the sign.
        slug: The slug of its project.
        project: The name of its project.
        description: What the business does.
        agent: The name of the agent.
        assistant: How the agent introduces itself.
        recall: How the agent searches: ``hook``, before each answer, or ``tool``, when the model asks for it.
        index_name: The name of the index of its documents.
        documents: The documents: ``id``, ``text``, ``metadata``.
        callers: The callers: ``id``, ``name``, and the values of slots.
        first_greetings: How a first call begins.
        greetings: How a later call begins.
        goodbyes: How a call ends.
        talks: What a call can be about, by name.
    """

    name: str
    slug: str
    project: str
    description: str
    agent: str
    assistant: str
    recall: str
    index_name: str
    documents: Sequence[Mapping[str, Any]]
    callers: Sequence[Mapping[str, str]]
    first_greetings: Sequence[ScriptedTurn]
    greetings: Sequence[ScriptedTurn]
    goodbyes: Sequence[ScriptedTurn]
    talks: Mapping[str, Talk]


def load_lines() -> list[PhoneLine]:
    """Return the phone lines of the demo."""
    return [_parse_line(yaml.safe_load((_TALKS / f"{name}.yaml").read_text(encoding="utf-8"))) for name in _LINES]


def _parse_line(content: Mapping[str, Any]) -> PhoneLine:
    documents = (_DOCUMENTS / content["documents"]["file"]).read_text(encoding="utf-8").splitlines()
    return PhoneLine(
        name=content["line"],
        slug=content["project"]["slug"],
        project=content["project"]["name"],
        description=content["project"]["description"],
        agent=content["agent"],
        assistant=content["assistant"],
        recall=content["recall"],
        index_name=content["documents"]["index"],
        documents=[json.loads(line) for line in documents],
        callers=content["callers"],
        first_greetings=_to_turns(content["greetings"]["first"]),
        greetings=_to_turns(content["greetings"]["again"]),
        goodbyes=_to_turns(content["goodbyes"]),
        talks={name: Talk(**talk) for name, talk in content["talks"].items()},
    )
