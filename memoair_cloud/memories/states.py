"""The states of a memory, and the allowed transitions between them."""

from enum import Enum


class MemoryState(str, Enum):
    """The state of a memory."""

    CURRENT = "current"  # valid: machines pull it
    REPEAT = "repeat"  # another current memory says the same
    HISTORY = "history"  # another memory has replaced it
    WITHDRAWN = "withdrawn"  # a later extraction of its call no longer contains it; its content is removed
    DELETED = "deleted"  # deleted through the API; its content is removed, and it is never learned again


# The states with content. Their memories are merged again whenever one of them is added or removed.
RETAINED_STATES = frozenset({MemoryState.CURRENT, MemoryState.REPEAT, MemoryState.HISTORY})
_TRANSITIONS = {
    MemoryState.CURRENT: RETAINED_STATES | {MemoryState.WITHDRAWN, MemoryState.DELETED},
    MemoryState.REPEAT: RETAINED_STATES | {MemoryState.WITHDRAWN, MemoryState.DELETED},
    MemoryState.HISTORY: RETAINED_STATES | {MemoryState.WITHDRAWN, MemoryState.DELETED},
    MemoryState.WITHDRAWN: RETAINED_STATES | {MemoryState.DELETED},
    MemoryState.DELETED: frozenset[MemoryState](),
}


def transition(current: MemoryState, target: MemoryState) -> MemoryState:
    """Return the state after a transition; raise RuntimeError if it is not allowed."""
    if current is not target and target not in _TRANSITIONS[current]:
        raise RuntimeError(f"invalid transition of a memory: {current.value} to {target.value}")
    return target
