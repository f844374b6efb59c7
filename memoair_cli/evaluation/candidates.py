"""What is to be tried instead of the present state: from options, and from a file."""

from pathlib import Path
from typing import Annotated, Any, Optional

import attrs
import typer

from memoair_cli.options import fail
from memoair_evaluation.candidate import (
    MAX_BUDGET_CHARS,
    MIN_BUDGET_CHARS,
    Candidate,
    InvalidCandidateError,
    RecallSettings,
    decode_candidate,
    parse_candidate,
)
from memoair_protocol.enums import LaneName
from memoair_protocol.input_files import read_regular_file

_MAX_CANDIDATE_BYTES = 1 << 20
_USAGE = 2

# The options of a search that a candidate may change.
LaneOptions = Annotated[
    Optional[list[LaneName]],  # noqa: UP045 - Typer needs this on Python 3.10
    typer.Option(help="Ask only this lane; can be repeated."),
]
TopKOptions = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(metavar="[LANE=]N", help="The maximum number of hits, of each lane or of one."),
]
ContextCharsOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=MIN_BUDGET_CHARS, max=MAX_BUDGET_CHARS, help="The maximum characters of the context."),
]
LaneCharsOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=MIN_BUDGET_CHARS, max=MAX_BUDGET_CHARS, help="The maximum characters of each lane's section."),
]
MinConfidenceOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0, max=1, help="Leave out hits of less confidence."),
]


def read_candidate(path: Path | None, options: RecallSettings) -> Candidate:
    """Return the candidate of a file, with what options say in its place; exit with 2 if it is invalid.

    Args:
        path: The file; None for none.
        options: The settings that options name.
    """
    candidate = Candidate() if path is None else _read_file(path)
    return attrs.evolve(candidate, recall=_merge(candidate.recall, options))


def _read_file(path: Path) -> Candidate:
    try:
        return decode_candidate(read_regular_file(path, _MAX_CANDIDATE_BYTES + 1))
    except InvalidCandidateError as error:
        fail(f"{path}: {error}", _USAGE)
    except OSError as error:
        fail(f"{path}: {error.strerror or error}", _USAGE)


def parse_recall_options(
    lanes: list[LaneName] | None,
    top_k: list[str] | None,
    context_chars: int | None,
    lane_chars: int | None,
    min_confidence: float | None,
    timeout_ms: float | None,
) -> RecallSettings:
    """Return the settings that options name; exit with 2 if one is invalid. None is as by default."""
    limits: dict[str, Any] = {}
    for text in top_k or ():
        name, equals, number = text.rpartition("=")
        if not number.isdecimal() or (equals and name not in LaneName._value2member_map_):
            fail(f"--top-k: N or LANE=N is required, with a lane of {', '.join(LaneName)}", _USAGE)
        limits |= dict.fromkeys([name] if name else [lane.value for lane in LaneName], int(number))
    wire = RecallSettings(
        lanes=None if not lanes else tuple(lanes),
        context_chars=context_chars,
        lane_chars=lane_chars,
        min_confidence=min_confidence,
        timeout_ms=timeout_ms,
    ).to_wire()
    try:
        return parse_candidate({"recall": wire | ({"topK": limits} if limits else {})}).recall
    except InvalidCandidateError as error:
        fail(f"{error.field}: {error.problem}", _USAGE)


def _merge(settings: RecallSettings, options: RecallSettings) -> RecallSettings:
    """Return the settings with those that the options say in their place."""
    given = {
        field.name: getattr(options, field.name)
        for field in attrs.fields(RecallSettings)
        if getattr(options, field.name) is not None and field.name != "top_k"
    }
    return attrs.evolve(settings, top_k={**settings.top_k, **options.top_k}, **given)
