"""The states of a run, and which one can follow which."""

from collections.abc import Mapping
from enum import Enum


class RunState(str, Enum):
    """The state of a run."""

    QUEUED = "queued"  # a worker will begin it, once its documents are there
    RUNNING = "running"  # its cases, documents and prompt are fixed; workers score the cases
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELED}),
    RunState.RUNNING: frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELED}),
    RunState.DONE: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELED: frozenset(),
}
OPEN = tuple(state for state, following in TRANSITIONS.items() if following)


def is_open(state: RunState) -> bool:
    """Return whether a run in a state can still change."""
    return bool(TRANSITIONS[state])
