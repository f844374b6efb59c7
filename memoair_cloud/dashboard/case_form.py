"""The form of an evaluation case: from a case on the wire to its fields, and from what a browser sends to a case.

Lists are rows of fields with the same name. A browser sends empty fields, too, so that the rows of several fields stay
together; empty rows are left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.datastructures import FormData

from memoair_cloud.dashboard.form_values import clean_text, parse_filter
from memoair_cloud.errors import InvalidRequestError
from memoair_protocol.enums import LaneName

EXPECTATION_KINDS = ("fact", "document", "turn", "text")
# Rows that a form shows of what was said before. A case that was copied from a caller can have hundreds of turns: they
# stay as they are, unless the case is changed as JSON or as a file.
MAX_TURN_ROWS = 40
# The parts of a row by their names on the wire, and the fields of the form. "more" is what the form does not show.
_TURN_FIELDS = {
    "turnId": "turn_id",
    "sessionId": "turn_session",
    "occurredAt": "turn_at",
    "user": "turn_user",
    "assistant": "turn_assistant",
    "more": "turn_more",
}
_TALK_FIELDS = {"user": "talk_user", "assistant": "talk_assistant", "more": "talk_more"}
_FACT_FIELDS = {"text": "fact_text", "more": "fact_more"}
# What names an expectation more exactly, by its kind.
_PLACES = {"document": "index", "turn": "session"}
_LANES = tuple(lane.value for lane in LaneName)

Row = Mapping[str, str]


@attrs.frozen
class CaseForm:
    """The fields of a case, as the form shows them.

    Attributes:
        id: The id of the case.
        question: The question.
        expected_answer: The expected answer, for the judge.
        name: How the caller is called.
        facts: What is known about the caller.
        turns: What the caller has said before, by the names on the wire.
        has_kept_turns: Whether there are too many turns for the form, so that it leaves them as they are.
        kept_turn_count: Their number.
        talk: The talk so far.
        must: What must be recalled: ``kind``, ``value``, and ``place``, the index of a document or the call of a turn.
        must_not: What must not.
        at: The moment of the question.
        lanes: The lanes to ask.
        filter: The condition on metadata, as JSON.
        tags: The tags, separated by commas.
        notes: Notes for colleagues.
    """

    id: str = ""
    question: str = ""
    expected_answer: str = ""
    name: str = ""
    facts: Sequence[Row] = ()
    turns: Sequence[Row] = ()
    has_kept_turns: bool = False
    kept_turn_count: int = 0
    talk: Sequence[Row] = ()
    must: Sequence[Row] = ()
    must_not: Sequence[Row] = ()
    at: str = ""
    lanes: Sequence[str] = _LANES
    filter: str = ""
    tags: str = ""
    notes: str = ""


def form_of_case(content: Mapping[str, Any]) -> CaseForm:
    """Return the form that shows a case.

    Args:
        content: The case as it is on the wire.
    """
    given = content.get("given") or {}
    facts, turns = given.get("facts") or (), given.get("turns") or ()
    has_kept_turns = len(turns) > MAX_TURN_ROWS
    return CaseForm(
        id=content["id"],
        question=content["question"],
        expected_answer=content.get("expectedAnswer") or "",
        name=str((given.get("profile") or {}).get("name") or ""),
        facts=[_to_row(fact if isinstance(fact, dict) else {"text": fact}, _FACT_FIELDS) for fact in facts],
        turns=[] if has_kept_turns else [_to_row(turn, _TURN_FIELDS) for turn in turns],
        has_kept_turns=has_kept_turns,
        kept_turn_count=len(turns),
        talk=[_to_row(turn, _TALK_FIELDS) for turn in content.get("talk") or ()],
        must=[describe_expectation(item) for item in content.get("must") or ()],
        must_not=[describe_expectation(item) for item in content.get("mustNot") or ()],
        at=content.get("at") or "",
        lanes=_LANES if content.get("lanes") is None else list(content["lanes"]),
        filter=json.dumps(content["filter"], ensure_ascii=False) if content.get("filter") else "",
        tags=", ".join(content.get("tags") or ()),
        notes=content.get("notes") or "",
    )


def read_case_form(fields: FormData) -> CaseForm:
    """Return the form as a browser has sent it."""
    return CaseForm(
        id=_read(fields, "case_id"),
        question=_read(fields, "question"),
        expected_answer=_read(fields, "expected_answer"),
        name=_read(fields, "name"),
        facts=_read_rows(fields, _FACT_FIELDS, ("text",)),
        turns=_read_rows(fields, _TURN_FIELDS, ("user", "assistant")),
        has_kept_turns=_read(fields, "keeps_turns") == "true",
        talk=_read_rows(fields, _TALK_FIELDS, ("user", "assistant")),
        must=read_expectations(fields, "must"),
        must_not=read_expectations(fields, "must_not"),
        at=_read(fields, "at"),
        lanes=[lane for lane in _read_all(fields, "lane") if lane],
        filter=_read(fields, "filter"),
        tags=_read(fields, "tags"),
        notes=_read(fields, "notes"),
    )


def read_expectations(fields: FormData, name: str) -> list[Row]:
    """Return the rows of expectations of a form; those without a value are left out.

    Args:
        fields: What the browser has sent.
        name: ``must`` or ``must_not``.
    """
    return _read_rows(fields, {part: f"{name}_{part}" for part in ("kind", "value", "place")}, ("value",))


def make_case(form: CaseForm, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the case of a form, as it is on the wire. It is not checked yet.

    Args:
        form: The form.
        stored: The case that it changes; what the form does not show stays as it is there.

    Raises:
        InvalidRequestError: If a field cannot be read.
    """
    stored = stored or {}
    stored_given = stored.get("given") or {}
    profile = {**(stored_given.get("profile") or {}), "name": form.name}
    given = {
        "profile": {name: value for name, value in profile.items() if value},
        "facts": [fact["text"] if set(fact) == {"text"} else fact for fact in map(_from_row, form.facts)],
        "turns": stored_given.get("turns") if form.has_kept_turns else [_from_row(turn) for turn in form.turns],
    }
    content = {
        "id": form.id,
        "question": form.question,
        "given": {name: value for name, value in given.items() if value},
        "talk": [_from_row(turn) for turn in form.talk],
        "at": form.at,
        "must": [make_expectation(row) for row in form.must],
        "mustNot": [make_expectation(row) for row in form.must_not],
        "expectedAnswer": form.expected_answer,
        "filter": parse_filter(form.filter),
        "tags": [tag.strip() for tag in form.tags.split(",") if tag.strip()],
        "notes": form.notes,
    }
    content = {name: value for name, value in content.items() if value or name in ("id", "question")}
    return content if set(form.lanes) == set(_LANES) else {**content, "lanes": list(form.lanes)}


def describe_expectation(expectation: Mapping[str, Any]) -> Row:
    """Return an expectation as ``kind``, ``value`` and ``place``, as `CaseForm` has it."""
    kind = next(kind for kind in EXPECTATION_KINDS if expectation.get(kind) is not None)
    place = expectation.get(_PLACES.get(kind, ""))
    return {"kind": kind, "value": str(expectation[kind]), "place": str(place or "")}


def make_expectation(row: Row) -> dict[str, Any]:
    """Return an expectation as it is on the wire.

    Raises:
        InvalidRequestError: If its kind is unknown, or if something of this kind has no place.
    """
    kind = row["kind"]
    if kind not in EXPECTATION_KINDS:
        raise InvalidRequestError(f"an expectation is one of {', '.join(EXPECTATION_KINDS)}", field="must")
    if not row["place"]:
        return {kind: row["value"]}
    if kind not in _PLACES:
        raise InvalidRequestError("only a document has an index, only a turn a call: empty the field", field="must")
    return {kind: row["value"], _PLACES[kind]: row["place"]}


def parse_case_text(text: str) -> dict[str, Any]:
    """Return a case that was written as JSON. It is not checked yet.

    Raises:
        InvalidRequestError: If it is not a JSON object.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidRequestError(f"the case is not valid JSON{place}", field="content") from None
    if not isinstance(content, dict):
        raise InvalidRequestError("a case is a JSON object", field="content")
    return content


def _to_row(item: Mapping[str, Any], fields: Mapping[str, str]) -> Row:
    more = {name: value for name, value in item.items() if name not in fields}
    row = {name: str(item.get(name) or "") for name in fields}
    return {**row, "more": json.dumps(more) if more else ""}


def _from_row(row: Row) -> dict[str, Any]:
    more = parse_case_text(row["more"]) if row["more"] else {}
    return {**more, **{name: value for name, value in row.items() if value and name != "more"}}


def _read(fields: FormData, name: str) -> str:
    return clean_text(fields.get(name))


def _read_all(fields: FormData, name: str) -> list[str]:
    return [clean_text(value) for value in fields.getlist(name)]


def _read_rows(fields: FormData, names: Mapping[str, str], required: Sequence[str]) -> list[Row]:
    """Return the rows in which one of the required parts is not empty."""
    columns = {name: _read_all(fields, field) for name, field in names.items()}
    count = max(map(len, columns.values()), default=0)
    rows = [
        {name: column[number] if number < len(column) else "" for name, column in columns.items()}
        for number in range(count)
    ]
    return [row for row in rows if any(row[name] for name in required)]
