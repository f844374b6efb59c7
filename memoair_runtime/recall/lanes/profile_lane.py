"""The profile lane: who is calling."""

from memoair_runtime.enums import LaneName
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneQuery, Passage


class ProfileLane:
    """What is known about the caller; it is small, so it answers every question with all of it."""

    name = LaneName.PROFILE
    default_limit = 16
    readiness = Readiness.READY  # the snapshot is read before the process serves

    def __init__(self, memory: UserMemory) -> None:
        self._memory = memory

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Answer with the profile, at most ``limit`` statements of it."""
        profile = self._memory.portrait
        statements = profile.statements()[: query.limit]
        return LaneAnswer(
            passages=tuple(Passage(statement, (number,)) for number, statement in enumerate(statements)),
            profile=profile.to_wire(),
        )
