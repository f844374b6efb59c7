"""What a check finds, and what checks are told."""

from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import attrs


class FindingStatus(Enum):
    """How grave a finding is."""

    OK = "ok"
    NOTE = "note"  # nothing is wrong, but whoever looks for something should know it
    PROBLEM = "problem"


@attrs.frozen
class Finding:
    """One thing that was looked at. ``remedy`` says how to mend it, where it is to be mended."""

    check: str
    status: FindingStatus
    message: str
    remedy: str | None = None


@attrs.frozen
class DoctorContext:
    """What is looked at. ``database_url`` is of a server that is run here; ``revives``: try again what it gave up."""

    storage_root: Path
    base_url: str
    api_key: str = attrs.field(repr=False)
    project_id: str
    agent_id: str
    database_url: str | None = attrs.field(repr=False)
    blob_url: str | None = attrs.field(repr=False)
    retry_failed: bool = False


Check = Callable[[DoctorContext], Iterator[Finding]]


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, FindingStatus.OK, message)


def note(check: str, message: str, remedy: str | None = None) -> Finding:
    """Nothing is wrong, but it is worth knowing."""
    return Finding(check, FindingStatus.NOTE, message, remedy)


def problem(check: str, message: str, remedy: str) -> Finding:
    """Something is wrong."""
    return Finding(check, FindingStatus.PROBLEM, message, remedy)


def pluralize(count: int, noun: str) -> str:
    """So many of something."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
