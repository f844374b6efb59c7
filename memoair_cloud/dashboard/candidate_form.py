"""The form of a candidate, what a run differs in from the present state: its fields, and the candidate on the wire."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.datastructures import FormData

from memoair_cloud.dashboard.form_values import clean_text, parse_number, parse_share
from memoair_cloud.errors import InvalidRequestError
from memoair_evaluation.candidate import MAX_BUDGET_CHARS, MIN_BUDGET_CHARS
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_TIMEOUT_MS, MAX_TOP_K

_LANES = tuple(lane.value for lane in LaneName)
# Lanes of which the number of hits can be chosen. The profile is one text.
TOP_K_LANES = tuple(lane for lane in _LANES if lane != LaneName.PROFILE.value)


@attrs.frozen
class CandidateForm:
    """The fields of a candidate. An empty one means: as it is now.

    Attributes:
        lanes: The lanes to ask.
        top_k: The hits of each lane, at most, by lane.
        context_chars: The characters of the context, at most.
        lane_chars: The characters of each lane's section, at most.
        min_confidence: The confidence below which hits are left out.
        timeout_ms: How long a search may take, in milliseconds.
        document_set: The id of the documents that are searched instead.
        prompt: ``version:3``, ``label:staging`` or ``text``.
        prompt_text: The text of a prompt that is not stored.
    """

    lanes: Sequence[str] = _LANES
    top_k: Mapping[str, str] = attrs.field(factory=dict)
    context_chars: str = ""
    lane_chars: str = ""
    min_confidence: str = ""
    timeout_ms: str = ""
    document_set: str = ""
    prompt: str = ""
    prompt_text: str = ""

    @property
    def changes_recall(self) -> bool:
        """Whether a setting of recall is chosen."""
        numbers = (self.context_chars, self.lane_chars, self.min_confidence, self.timeout_ms, *self.top_k.values())
        return any(numbers) or set(self.lanes) != set(_LANES)


def form_of_candidate(candidate: Mapping[str, Any]) -> CandidateForm:
    """Return the form that shows a candidate.

    Args:
        candidate: The candidate as it is on the wire.
    """
    recall = candidate.get("recall") or {}
    prompt = candidate.get("prompt") or {}
    kind = next((kind for kind in ("version", "label", "text") if kind in prompt), "")
    return CandidateForm(
        lanes=list(recall.get("lanes") or _LANES),
        top_k={lane: _show(value) for lane, value in (recall.get("topK") or {}).items()},
        context_chars=_show(recall.get("contextChars")),
        lane_chars=_show(recall.get("laneChars")),
        min_confidence=_show(recall.get("minConfidence")),
        timeout_ms=_show(recall.get("timeoutMs")),
        document_set=str((candidate.get("documents") or {}).get("setId") or ""),
        prompt=kind if kind in ("", "text") else f"{kind}:{prompt[kind]}",
        prompt_text=str(prompt.get("text") or ""),
    )


def read_candidate_form(fields: FormData) -> CandidateForm:
    """Return the form as a browser has sent it."""
    top_k = {lane: value for lane in TOP_K_LANES if (value := clean_text(fields.get(f"top_k_{lane}")))}
    return CandidateForm(
        lanes=[clean_text(lane) for lane in fields.getlist("lane") if lane],
        top_k=top_k,
        context_chars=clean_text(fields.get("context_chars")),
        lane_chars=clean_text(fields.get("lane_chars")),
        min_confidence=clean_text(fields.get("min_confidence")),
        timeout_ms=clean_text(fields.get("timeout_ms")),
        document_set=clean_text(fields.get("document_set")),
        prompt=clean_text(fields.get("prompt")),
        prompt_text=clean_text(fields.get("prompt_text")),
    )


def make_candidate(form: CandidateForm) -> dict[str, Any]:
    """Return the candidate of a form, as it is on the wire; empty for the present state.

    Raises:
        InvalidRequestError: If a field cannot be read.
    """
    if not form.lanes:
        raise InvalidRequestError("choose at least one lane", field="lane")
    budget = (MAX_BUDGET_CHARS, MIN_BUDGET_CHARS)
    recall = {
        "lanes": None if set(form.lanes) == set(_LANES) else list(form.lanes),
        "topK": {lane: parse_number(f"hits of {lane}", value, MAX_TOP_K, 0) for lane, value in form.top_k.items()},
        "contextChars": parse_number(
            "characters of the context", form.context_chars, MAX_BUDGET_CHARS, MIN_BUDGET_CHARS
        ),
        "laneChars": parse_number("characters of each lane", form.lane_chars, *budget),
        "minConfidence": parse_share("least confidence", form.min_confidence),
        "timeoutMs": parse_number("milliseconds", form.timeout_ms, int(MAX_TIMEOUT_MS)),
    }
    candidate = {
        "recall": {name: value for name, value in recall.items() if value not in (None, {})},
        "documents": {"setId": form.document_set} if form.document_set else {},
        "prompt": _make_prompt(form),
    }
    return {name: value for name, value in candidate.items() if value}


def describe_candidate(candidate: Mapping[str, Any], set_names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what a candidate changes, as names and values for people; empty for the present state.

    Args:
        candidate: The candidate as it is on the wire.
        set_names: The names of document sets by id.
    """
    form = form_of_candidate(candidate)
    set_name = set_names.get(form.document_set, f"{form.document_set}, deleted since")
    top_k = ", ".join(f"{value} of {lane}" for lane, value in form.top_k.items())
    prompt = {"": "", "text": "a text of its own"}.get(form.prompt, form.prompt.replace(":", " ", 1))
    changes = {
        "lanes": "" if set(form.lanes) == set(_LANES) else ", ".join(form.lanes),
        "hits at most": top_k,
        "characters of the context": form.context_chars,
        "characters of each lane": form.lane_chars,
        "least confidence": form.min_confidence,
        "milliseconds": form.timeout_ms,
        "documents": set_name if form.document_set else "",
        "prompt": prompt,
    }
    return [(name, value) for name, value in changes.items() if value]


def _make_prompt(form: CandidateForm) -> dict[str, Any]:
    kind, _, value = form.prompt.partition(":")
    if kind == "version" and value.isdecimal():
        return {"version": int(value)}
    if kind == "label" and value:
        return {"label": value}
    if kind == "text":
        if not form.prompt_text:
            raise InvalidRequestError("prompt: write the text, or choose another one", field="prompt_text")
        return {"text": form.prompt_text}
    if form.prompt:
        raise InvalidRequestError("prompt: choose one of the list", field="prompt")
    return {}


def _show(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
