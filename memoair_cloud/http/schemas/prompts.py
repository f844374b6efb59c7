"""Bodies of the routes of prompts."""

from datetime import datetime
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, Field

from memoair_cloud.http.schemas.base import RequestBody, ResponseBody, SanitizedText
from memoair_protocol.prompt_template import MAX_PROMPT_CHARS, MAX_PROMPT_LABEL_CHARS, PROMPT_LABEL_PATTERN

MAX_VERSION = 2**53 - 1
MAX_NOTES_CHARS = 2_000
MAX_PUSHED_LABELS = 20


def check_prompt_text(text: str) -> str:
    """Return the text of a prompt unchanged: it is stored exactly, or not at all.

    Raises:
        ValueError: If it is blank, or the database cannot hold it.
    """
    if not text.strip():
        raise ValueError("the text is blank")
    if "\0" in text:
        raise ValueError("the text contains a null character")
    return text


PromptText = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS), AfterValidator(check_prompt_text)]
VersionPath = Annotated[int, Path(ge=1, le=MAX_VERSION)]
LabelPath = Annotated[str, Path(max_length=MAX_PROMPT_LABEL_CHARS, pattern=PROMPT_LABEL_PATTERN)]
LabelName = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_LABEL_CHARS, pattern=PROMPT_LABEL_PATTERN)]


class PromptIn(RequestBody):
    """A text to push as a version, and the labels to point to it."""

    text: PromptText
    notes: Annotated[SanitizedText, Field(max_length=MAX_NOTES_CHARS)] | None = None
    labels: Annotated[list[LabelName], Field(max_length=MAX_PUSHED_LABELS)] | None = None
    expected_version: int | None = Field(
        None, ge=0, le=MAX_VERSION, description="the latest version that the sender knows, 0 for none"
    )


class PromptSummaryOut(ResponseBody):
    """A version of an agent's prompt, without its text."""

    agent_id: str
    version: int
    sha256: str
    placeholders: list[str]
    notes: str
    created_at: datetime
    created_by: str
    labels: list[str]


class PromptOut(PromptSummaryOut):
    """A version of an agent's prompt."""

    text: str


class PushedPromptOut(PromptOut):
    """What a push has led to: a new version, or the latest one if that has the same text."""

    is_new: bool


class LabeledPromptOut(PromptOut):
    """The version of an agent's prompt that a label points to."""

    label: str


class PromptsOut(ResponseBody):
    """A page of the versions of an agent's prompt. `next` is the cursor of the next page, null on the last one."""

    prompts: list[PromptSummaryOut]
    next: str | None


class PromptDiffOut(ResponseBody):
    """The difference between two versions as a unified diff, empty if the texts are the same."""

    before: int = Field(serialization_alias="from", description="0 for an empty text")
    after: int = Field(serialization_alias="to")
    diff: str


class PromptLabelIn(RequestBody):
    """The version that a label is to point to."""

    version: int = Field(ge=1, le=MAX_VERSION)
    expected_version: int | None = Field(
        None, ge=0, le=MAX_VERSION, description="the version that it points to before, 0 if it must not exist"
    )


class PromptLabelOut(ResponseBody):
    """A label, and the version that it points to."""

    name: str
    version: int = Field(validation_alias="number")
    moved_at: datetime
    moved_by: str


class PromptLabelsOut(ResponseBody):
    """A page of the labels of an agent's prompt."""

    labels: list[PromptLabelOut]
    next: str | None


class PromptLabelMoveOut(ResponseBody):
    """A move of a label to a version, null if it was removed; ``replaced`` is where it pointed before, or null."""

    version: int | None = Field(validation_alias="number")
    replaced: int | None
    is_rollback: bool
    moved_at: datetime
    moved_by: str


class PromptLabelMovesOut(ResponseBody):
    """A page of the moves of a label."""

    moves: list[PromptLabelMoveOut]
    next: str | None
