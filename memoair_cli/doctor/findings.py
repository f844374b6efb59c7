"""Findings of checks, and what checks work on."""

from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import attrs


class FindingStatus(Enum):
    """The severity of a finding."""

    OK = "ok"
    NOTE = "note"  # not a problem, but useful to know when searching for one
    PROBLEM = "problem"


@attrs.frozen
class Finding:
    """The result of one check.

    Attributes:
        check: What was checked, such as ``storage``.
        status: The severity.
        message: What was found.
        remedy: How to fix it.
    """

    check: str
    status: FindingStatus
    message: str
    remedy: str | None = None


@attrs.frozen
class DoctorContext:
    """What the checks work on.

    Attributes:
        storage_root: The storage root.
        base_url: The URL of the cloud.
        api_key: The API key, empty if it is not set.
        project_id: The project, empty if it is not set.
        agent_id: The agent, empty if it is not set.
        database_url: The database of a server that is operated here, None to skip these checks.
        blob_url: The server's storage of index files.
        retry_failed: Whether the server retries work that failed permanently.
    """

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
    """Return a finding that is as it should be."""
    return Finding(check, FindingStatus.OK, message)


def note(check: str, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that is not a problem, but useful to know."""
    return Finding(check, FindingStatus.NOTE, message, remedy)


def problem(check: str, message: str, remedy: str) -> Finding:
    """Return a problem, with how to fix it."""
    return Finding(check, FindingStatus.PROBLEM, message, remedy)


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 call``, ``2 calls``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
