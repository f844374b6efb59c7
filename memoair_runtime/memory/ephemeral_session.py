"""A session of which nothing is stored."""

from collections.abc import Sequence
from datetime import datetime

from memoair_protocol.session_prompt import find_prompt_version
from memoair_runtime.memory.saved_turns import SavedTurn, SpokenTurn
from memoair_runtime.memory.session import SessionStart, SessionState, check_not_ended


class EphemeralSession:
    """A session of which nothing is stored: it searches the project's documents only."""

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.state = SessionState.NEW
        self.prompt_version: int | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it."""
        return self.state is SessionState.NEW

    def start(self, info: SessionStart, now: datetime, *, reopens: bool = True) -> None:  # noqa: ARG002
        """Start the session."""
        if not reopens:
            check_not_ended(self)
        self.state = SessionState.OPEN
        self.prompt_version = find_prompt_version(info.metadata) or self.prompt_version

    def save_turns(self, turns: Sequence[SpokenTurn], now: datetime) -> list[SavedTurn]:  # noqa: ARG002
        """Store nothing."""
        check_not_ended(self)
        return [SavedTurn() for _ in turns]

    def end(self, reason: str, now: datetime, *, is_known_elsewhere: bool = False) -> None:  # noqa: ARG002
        """End the session."""
        if self.state is SessionState.OPEN:
            self.state = SessionState.ENDED
