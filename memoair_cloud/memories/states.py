"""Where a memory stands, and the only moves between."""

from enum import Enum


class MemoryState(str, Enum):
    """Where a memory stands."""

    CURRENT = "current"  # it holds, and devices have it
    REPEAT = "repeat"  # another one that holds says the same
    HISTORY = "history"  # another one has taken its place
    WITHDRAWN = "withdrawn"  # its call was read again, and does not say so any more; no words are kept
    DELETED = "deleted"  # somebody has deleted it; no words are kept, and it is never learned again


# Those that say something; how they stand to each other is worked out anew whenever one of them comes or goes.
RETAINED_STATES = frozenset({MemoryState.CURRENT, MemoryState.REPEAT, MemoryState.HISTORY})
_TRANSITIONS = {
    MemoryState.CURRENT: RETAINED_STATES | {MemoryState.WITHDRAWN, MemoryState.DELETED},
    MemoryState.REPEAT: RETAINED_STATES | {MemoryState.WITHDRAWN, MemoryState.DELETED},
    MemoryState.HISTORY: RETAINED_STATES | {MemoryState.WITHDRAWN, MemoryState.DELETED},
    MemoryState.WITHDRAWN: RETAINED_STATES | {MemoryState.DELETED},
    MemoryState.DELETED: frozenset[MemoryState](),
}


def transition(current: MemoryState, target: MemoryState) -> MemoryState:
    """The state after a move; one that there is none of is a defect."""
    if current is not target and target not in _TRANSITIONS[current]:
        raise RuntimeError(f"a memory that is {current.value} can't become {target.value}")
    return target
