"""Candidates: what is to be tried instead of the present state, that is recall settings, documents, a prompt."""

from collections.abc import Mapping
from typing import Annotated, Any

import attrs
import msgspec

from memoair_evaluation.case import InvalidCaseError, decode_part
from memoair_evaluation.errors import InvalidFieldError
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_TIMEOUT_MS, MAX_TOP_K
from memoair_protocol.prompt_template import is_prompt_label

# A context of less says nothing; one of more is no context of a call.
MIN_BUDGET_CHARS = 100
MAX_BUDGET_CHARS = 100_000
_MAX_BYTES = 1 << 20


class InvalidCandidateError(InvalidFieldError):
    """A candidate is invalid."""


@attrs.frozen
class RecallSettings:
    """The settings of a search. A setting of None has the default of a runtime.

    Attributes:
        lanes: The lanes to ask; a case that names lanes is asked those of them that are here, too.
        top_k: The maximum number of hits by lane.
        context_chars: The maximum characters of the context.
        lane_chars: The maximum characters of each lane's section.
        min_confidence: Leave out hits of less confidence, 0 to 1.
        timeout_ms: How long a search may take. Nothing is cut off after that, but a lane that took longer is counted.
    """

    lanes: tuple[LaneName, ...] | None = None
    top_k: Mapping[LaneName, int] = attrs.field(factory=dict)
    context_chars: int | None = None
    lane_chars: int | None = None
    min_confidence: float | None = None
    timeout_ms: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the settings in JSON, without those that are as by default."""
        wire: dict[str, Any] = {
            "lanes": None if self.lanes is None else [lane.value for lane in self.lanes],
            "topK": {lane.value: limit for lane, limit in self.top_k.items()} or None,
            "contextChars": self.context_chars,
            "laneChars": self.lane_chars,
            "minConfidence": self.min_confidence,
            "timeoutMs": self.timeout_ms,
        }
        return {name: value for name, value in wire.items() if value is not None}


@attrs.frozen
class PromptChoice:
    """The prompt of a candidate, for the judge: exactly one of version, label and text.

    Attributes:
        version: A version of the agent's prompt.
        label: A label of it.
        text: A text that no version has.
    """

    version: int | None = None
    label: str | None = None
    text: str | None = attrs.field(default=None, repr=False)

    def to_wire(self) -> dict[str, Any]:
        """Return the choice in JSON."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}


@attrs.frozen
class Candidate:
    """What differs from the present state.

    Attributes:
        recall: The settings of the searches.
        document_set_id: Documents to search instead of the project's; None for those.
        prompt: The prompt for the judge; None for that of the label ``production``.
    """

    recall: RecallSettings = RecallSettings()
    document_set_id: str | None = None
    prompt: PromptChoice | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the candidate in JSON; ``{}`` is the present state."""
        wire: dict[str, Any] = {
            "recall": self.recall.to_wire(),
            "documents": None if self.document_set_id is None else {"setId": self.document_set_id},
            "prompt": None if self.prompt is None else self.prompt.to_wire(),
        }
        return {name: value for name, value in wire.items() if value}


class _CandidatePart(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


_TopK = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_K)]
_Budget = Annotated[int, msgspec.Meta(ge=MIN_BUDGET_CHARS, le=MAX_BUDGET_CHARS)]


class _WireTopK(_CandidatePart, frozen=True):
    profile: _TopK | None = None
    working: _TopK | None = None
    permanent: _TopK | None = None
    org: _TopK | None = None


class _WireRecall(_CandidatePart, frozen=True):
    lanes: list[LaneName] | None = None
    top_k: _WireTopK | None = msgspec.field(default=None, name="topK")
    context_chars: _Budget | None = None
    lane_chars: _Budget | None = None
    min_confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    timeout_ms: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_MS)] | None = None


class _WireDocuments(_CandidatePart, frozen=True):
    set_id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None


class _WirePrompt(_CandidatePart, frozen=True):
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    label: str | None = None
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=100_000)] | None = None


class _WireCandidate(_CandidatePart, frozen=True):
    recall: _WireRecall | None = None
    documents: _WireDocuments | None = None
    prompt: _WirePrompt | None = None


def parse_candidate(content: Mapping[str, Any]) -> Candidate:
    """Return the candidate that an object of JSON says.

    Args:
        content: The object. A field that is null counts as absent.

    Raises:
        InvalidCandidateError: If it is no candidate; the message names the field and not its value.
    """
    try:
        encoded = msgspec.json.encode(content)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):  # such as half of a surrogate pair
        raise InvalidCandidateError("", "the candidate has a character or a value that JSON cannot have") from None
    return decode_candidate(encoded)


def decode_candidate(content: bytes) -> Candidate:
    """Return the candidate that a JSON text says; raises as `parse_candidate`."""
    try:
        wire = decode_part(content, _WireCandidate, _MAX_BYTES)
    except InvalidCaseError as error:
        raise InvalidCandidateError(error.field, error.problem) from None
    prompt = None if wire.prompt is None else PromptChoice(wire.prompt.version, wire.prompt.label, wire.prompt.text)
    if prompt is not None and len(prompt.to_wire()) != 1:
        raise InvalidCandidateError("prompt", "exactly one of version, label and text is required")
    if prompt is not None and prompt.label is not None and not is_prompt_label(prompt.label):
        raise InvalidCandidateError("prompt.label", "not the name of a label; a number is a version")
    return Candidate(
        recall=RecallSettings() if wire.recall is None else _to_settings(wire.recall),
        document_set_id=None if wire.documents is None else wire.documents.set_id,
        prompt=prompt,
    )


def _to_settings(wire: _WireRecall) -> RecallSettings:
    top_k = {} if wire.top_k is None else {lane: getattr(wire.top_k, lane.value) for lane in LaneName}
    return RecallSettings(
        lanes=None if wire.lanes is None else tuple(lane for lane in LaneName if lane in wire.lanes),
        top_k={lane: limit for lane, limit in top_k.items() if limit is not None},
        context_chars=wire.context_chars,
        lane_chars=wire.lane_chars,
        min_confidence=wire.min_confidence,
        timeout_ms=wire.timeout_ms,
    )
