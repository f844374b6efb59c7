"""The profile lane: who the user is. Small, and a module of its own because each lane is."""

from memoair_protocol.enums import LaneName
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneQuery, Passage


class ProfileLane:
    """The user's profile. It is small, so every query gets all of it. Thread-safe."""

    name = LaneName.PROFILE
    default_limit = 16
    readiness = Readiness.READY  # the snapshot is read before the process serves

    def __init__(self, memory: UserMemory) -> None:
        self._memory = memory

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Return the profile, with at most ``limit`` statements as passages."""
        profile = self._memory.merged_profile
        statements = profile.statements()[: query.limit]
        return LaneAnswer(
            passages=tuple(Passage(statement, (index,)) for index, statement in enumerate(statements)),
            profile=profile.to_wire(),
        )
