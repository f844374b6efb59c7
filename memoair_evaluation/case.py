"""Cases: what a caller has said before, what they ask, and what must be recalled; one JSON object per case.

The same format is a line of a suite in a file, a body of the API, and what the cloud stores. What is invalid is named
by its place and never by its value, which may be a caller's words.
"""

import codecs
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import attrs
import msgspec

from memoair_evaluation.case_records import (
    CURRENT_SESSION,
    Expectation,
    Given,
    GivenFact,
    GivenTurn,
    RecallCase,
    case_to_wire,
    hash_case,
)
from memoair_evaluation.errors import InvalidFieldError
from memoair_index.analysis import split_words
from memoair_index.folding import fold
from memoair_protocol.enums import LaneName
from memoair_protocol.identifiers import identifier_problem
from memoair_protocol.input_files import read_regular_file
from memoair_protocol.json_guards import is_deeper_than, strip_values
from memoair_protocol.limits import MAX_CASE_BYTES, MAX_QUERY_CHARS, MAX_RUNTIME_JSON_DEPTH
from memoair_protocol.timestamps import parse_timestamp
from memoair_runtime.preview import InvalidSearchError, check_filter

__all__ = [
    "CURRENT_SESSION",
    "EvaluationCase",
    "Expectation",
    "Given",
    "GivenFact",
    "GivenTurn",
    "InvalidCaseError",
    "InvalidSuiteError",
    "RecallCase",
    "SuiteProblem",
    "case_to_wire",
    "decode_case",
    "hash_case",
    "parse_case",
    "parse_suite",
    "read_suite",
]

# The name that callers know. In the cloud, it is that of a table.
EvaluationCase = RecallCase

# No suite that people keep is larger. A file of more is most likely not a suite.
MAX_SUITE_BYTES = 256 << 20
_MAX_SHOWN_PROBLEMS = 20
# No turn was spoken before, and the times of other turns are some minutes from these.
_MIN_YEAR, _MAX_YEAR = 1900, 9_000
_FIELD_NAME = re.compile(r"contains unknown field `([A-Za-z0-9_.-]{1,40})`")
_ENUMS = {"": ", ".join(lane.value for lane in LaneName)}

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Phrase = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
_Label = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class InvalidCaseError(InvalidFieldError):
    """A case is invalid."""


@attrs.frozen
class SuiteProblem:
    """Something that is wrong in a suite.

    Attributes:
        line: The line, from 1.
        field: The field in that line; empty for the line as a whole.
        problem: What is wrong.
    """

    line: int
    field: str
    problem: str

    def __str__(self) -> str:
        """Return the problem as a line for people."""
        return f"line {self.line}: {f'{self.field}: ' if self.field else ''}{self.problem}"


class InvalidSuiteError(ValueError):
    """A suite has invalid lines.

    Attributes:
        problems: All of them, in the order of the file.
    """

    def __init__(self, problems: list[SuiteProblem]) -> None:
        more = len(problems) - _MAX_SHOWN_PROBLEMS
        lines = [*map(str, problems[:_MAX_SHOWN_PROBLEMS]), *([f"... and {more:,} more"] if more > 0 else [])]
        super().__init__("\n".join(lines))
        self.problems = problems


class _CasePart(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class _WireTurn(_CasePart, frozen=True):
    user: str = ""
    assistant: str = ""
    turn_id: _Label | None = None
    metadata: dict[str, Any] = {}


class _WireGivenTurn(_WireTurn, frozen=True):
    session_id: _Text | None = None
    occurred_at: str | None = None


class _WireFact(_CasePart, frozen=True):
    text: _Text
    kind: str = ""
    subject: str = ""
    said_at: str | None = None


class _WireProfile(_CasePart, frozen=True):
    name: str | None = None
    summary: str | None = None
    attributes: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class _WireGiven(_CasePart, frozen=True):
    profile: _WireProfile | None = None
    facts: list[str | _WireFact] = []
    turns: list[_WireGivenTurn] = []


class _WireExpectation(_CasePart, frozen=True):
    fact: _Phrase | None = None
    document: _Text | None = None
    index: _Text | None = None
    turn: _Text | None = None
    session: _Text | None = None
    text: _Phrase | None = None


class _WireCase(_CasePart, frozen=True):
    id: _Text
    question: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_QUERY_CHARS)]
    given: _WireGiven | None = None
    talk: list[_WireTurn] = []
    at: str | None = None
    must: Annotated[list[_WireExpectation], msgspec.Meta(max_length=100)] = []
    must_not: Annotated[list[_WireExpectation], msgspec.Meta(max_length=100)] = []
    expected_answer: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    filter: dict[str, Any] | None = None
    lanes: list[LaneName] | None = None
    tags: Annotated[list[_Label], msgspec.Meta(max_length=50)] = []
    notes: Annotated[str, msgspec.Meta(max_length=2_000)] = ""


def parse_case(content: Mapping[str, Any]) -> RecallCase:
    """Return the case that an object of JSON says.

    Args:
        content: The object.

    Raises:
        InvalidCaseError: If it is no case; the message names the field and not its value.
    """
    try:
        encoded = msgspec.json.encode(content)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):  # such as half of a surrogate pair
        raise InvalidCaseError("", "the case has a character or a value that JSON cannot have") from None
    return decode_case(encoded)


def decode_case(content: bytes) -> RecallCase:
    """Return the case that a JSON text says; raises as `parse_case`."""
    return _to_case(decode_part(content, _WireCase))


def read_suite(path: Path) -> list[RecallCase]:
    """Return the cases of a file: one JSON object per line, empty lines apart.

    Raises:
        InvalidSuiteError: If any line is invalid; it names all that are.
        OSError: If the file cannot be read, or is not a regular file.
    """
    content = read_regular_file(path, MAX_SUITE_BYTES + 1)
    if len(content) > MAX_SUITE_BYTES:
        raise InvalidSuiteError([SuiteProblem(1, "", f"the file is larger than {MAX_SUITE_BYTES >> 20} MB")])
    return parse_suite(content)


def parse_suite(content: bytes) -> list[RecallCase]:
    """Return the cases of a suite in JSON lines; raises InvalidSuiteError as `read_suite`."""
    cases: list[RecallCase] = []
    problems: list[SuiteProblem] = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            case = decode_case(line)
            first = first_lines.setdefault(case.id, number)
            if first != number:
                raise InvalidCaseError("id", f"line {first} has a case with the same id")
            cases.append(case)
        except InvalidCaseError as error:
            problems.append(SuiteProblem(number, error.field, error.problem))
    if problems:
        raise InvalidSuiteError(problems)
    return cases


StructT = TypeVar("StructT", bound=msgspec.Struct)


def decode_part(content: bytes, struct_type: type[StructT], max_bytes: int = MAX_CASE_BYTES) -> StructT:
    """Decode a JSON text from outside to a struct; raises InvalidCaseError, with the field."""
    if len(content) > max_bytes:
        raise InvalidCaseError("", f"longer than {max_bytes:,} bytes")
    if is_deeper_than(MAX_RUNTIME_JSON_DEPTH, content):
        raise InvalidCaseError("", f"nested deeper than {MAX_RUNTIME_JSON_DEPTH} levels")
    try:
        content.decode()
        return msgspec.json.decode(content, type=struct_type)
    except UnicodeDecodeError as error:
        raise InvalidCaseError("", f"not valid UTF-8 (byte {error.start + 1:,})") from None
    except msgspec.ValidationError as error:
        raise _to_invalid_case(str(error)) from None
    except (msgspec.DecodeError, RecursionError):
        raise InvalidCaseError("", "not valid JSON") from None


def _to_invalid_case(message: str) -> InvalidCaseError:
    """Return msgspec's message as an error: its path as the field, without the values that it quotes."""
    problem, _, path = strip_values(message, _ENUMS).partition(" - at ")
    field = path.strip("`").removeprefix("$").removeprefix(".")
    unknown = _FIELD_NAME.search(message)
    if unknown:
        return InvalidCaseError(f"{field}.{unknown[1]}" if field else unknown[1], "unknown field")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", problem)
    if missing:
        return InvalidCaseError(f"{field}.{missing[1]}" if field else missing[1], "required")
    return InvalidCaseError(field, problem[:1].lower() + problem[1:])


def _to_case(wire: _WireCase) -> RecallCase:
    if problem := identifier_problem(wire.id):
        raise InvalidCaseError("id", problem)
    if not wire.question.strip():
        raise InvalidCaseError("question", "is empty")
    given = None if wire.given is None else _to_given(wire.given)
    _check_turn_ids([("", turn.turn_id or "") for turn in wire.talk], "talk")
    at = _to_time(wire.at, "at")
    if at is not None and given is not None:
        _check_times(given, at)
    if wire.filter is not None:
        try:
            check_filter(wire.filter)
        except InvalidSearchError as error:
            raise InvalidCaseError("filter", str(error).removeprefix("filter: ")) from None
    return RecallCase(
        id=wire.id,
        question=wire.question,
        given=given,
        talk=tuple(_to_talk_turn(turn, f"talk[{position}]") for position, turn in enumerate(wire.talk)),
        at=at,
        must=_to_expectations(wire.must, "must"),
        must_not=_to_expectations(wire.must_not, "mustNot"),
        expected_answer=wire.expected_answer,
        filter=wire.filter or None,
        lanes=None if wire.lanes is None else tuple(lane for lane in LaneName if lane in wire.lanes),
        tags=tuple(dict.fromkeys(wire.tags)),
        notes=wire.notes,
    )


def _check_times(given: Given, at: datetime) -> None:
    turns = {f"turns[{position}].occurredAt": turn.occurred_at for position, turn in enumerate(given.turns)}
    facts = {f"facts[{position}].saidAt": fact.said_at for position, fact in enumerate(given.facts)}
    for field, time in {**turns, **facts}.items():
        if time is not None and time > at:
            raise InvalidCaseError("at", f"is before given.{field}")


def _to_given(wire: _WireGiven) -> Given | None:
    profile = {} if wire.profile is None else msgspec.to_builtins(wire.profile)
    given = Given(
        profile={name: value for name, value in profile.items() if value},
        facts=tuple(_to_fact(fact, f"given.facts[{position}]") for position, fact in enumerate(wire.facts)),
        turns=tuple(_to_given_turn(turn, f"given.turns[{position}]") for position, turn in enumerate(wire.turns)),
    )
    _check_turn_ids([(turn.session_id, turn.turn_id) for turn in given.turns], "given.turns")
    return given if given != Given() else None


def _to_fact(wire: str | _WireFact, field: str) -> GivenFact:
    fact = _WireFact(wire) if isinstance(wire, str) else wire
    if not fact.text.strip():
        raise InvalidCaseError(field, "is empty")
    return GivenFact(fact.text, fact.kind, fact.subject, _to_time(fact.said_at, f"{field}.saidAt"))


def _to_given_turn(wire: _WireGivenTurn, field: str) -> GivenTurn:
    session_id = wire.session_id or ""
    if session_id and (problem := identifier_problem(session_id)):
        raise InvalidCaseError(f"{field}.sessionId", problem)
    if session_id == CURRENT_SESSION:
        raise InvalidCaseError(f"{field}.sessionId", "this id is reserved for the call of the question")
    turn = _to_talk_turn(wire, field)
    occurred_at = _to_time(wire.occurred_at, f"{field}.occurredAt")
    return attrs.evolve(turn, session_id=session_id, occurred_at=occurred_at)


def _to_talk_turn(wire: _WireTurn, field: str) -> GivenTurn:
    if not (wire.user.strip() or wire.assistant.strip()):
        raise InvalidCaseError(field, "neither user nor assistant says anything")
    return GivenTurn(wire.user, wire.assistant, wire.turn_id or "", metadata=wire.metadata)


def _check_turn_ids(ids: list[tuple[str, str]], field: str) -> None:
    seen: set[tuple[str, str]] = set()
    for position, (session_id, turn_id) in enumerate(ids):
        if turn_id and (session_id, turn_id) in seen:
            raise InvalidCaseError(f"{field}[{position}].turnId", "another turn of the session has the same id")
        seen.add((session_id, turn_id))


def _to_expectations(wires: list[_WireExpectation], field: str) -> tuple[Expectation, ...]:
    return tuple(_to_expectation(wire, f"{field}[{position}]") for position, wire in enumerate(wires))


def _to_expectation(wire: _WireExpectation, field: str) -> Expectation:
    targets = [name for name in ("fact", "document", "turn", "text") if getattr(wire, name) is not None]
    if len(targets) != 1:
        raise InvalidCaseError(field, "exactly one of fact, document, turn and text is required")
    if wire.index is not None and targets != ["document"]:
        raise InvalidCaseError(f"{field}.index", "only with document")
    if wire.session is not None and targets != ["turn"]:
        raise InvalidCaseError(f"{field}.session", "only with turn")
    phrase = wire.fact or wire.text
    if phrase is not None and not split_words(fold(phrase)):
        raise InvalidCaseError(f"{field}.{targets[0]}", "has no word and no number to look for")
    return Expectation(wire.fact, wire.document, wire.index, wire.turn, wire.session, wire.text)


def _to_time(text: str | None, field: str) -> datetime | None:
    try:
        time = None if text is None else parse_timestamp(text)
    except ValueError:
        raise InvalidCaseError(field, "not an ISO 8601 timestamp such as 2026-01-05T10:00:00Z") from None
    if time is not None and not _MIN_YEAR <= time.year <= _MAX_YEAR:
        raise InvalidCaseError(field, f"the year is not from {_MIN_YEAR} to {_MAX_YEAR}")
    return time
