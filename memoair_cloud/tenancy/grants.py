"""What a key may do: in which projects, and whether it reads, changes, or only sends calls."""

from enum import Enum

import attrs

from memoair_cloud.errors import ForbiddenError


class KeyScope(str, Enum):
    """What a key may do in the projects that it may access."""

    EVERYTHING = "everything"
    READ = "read"  # read, and change nothing
    INGEST = "ingest"  # send what happens in calls; read only the prompts that labels point to


class Action(str, Enum):
    """What a transaction is for."""

    READ = "read"
    WRITE = "write"
    INGEST = "ingest"  # store events and recall traces of calls
    FETCH_PROMPT = "fetch_prompt"  # read the prompt that a label points to


_ALLOWED_ACTIONS = {
    KeyScope.EVERYTHING: frozenset(Action),
    KeyScope.READ: frozenset({Action.READ, Action.FETCH_PROMPT}),
    # A machine that only records its calls must know what its agent has to say. That is no caller's data. Versions
    # without a label are drafts, and it need not know which versions there were.
    KeyScope.INGEST: frozenset({Action.INGEST, Action.FETCH_PROMPT}),
}


@attrs.frozen
class Grant:
    """What a request may do.

    Attributes:
        scope: What it may do.
        project_id: The only project that it may access; None for all of the account.
    """

    scope: KeyScope = KeyScope.EVERYTHING
    project_id: str | None = None

    def allows(self, action: Action) -> bool:
        """Return whether it allows an action, in the projects that it is for."""
        return action in _ALLOWED_ACTIONS[self.scope]

    @property
    def can_write(self) -> bool:
        """Whether it may change data."""
        return self.allows(Action.WRITE)

    def check(self, action: Action, project_id: str) -> None:
        """Raise `ForbiddenError` unless it allows an action.

        Args:
            action: The action.
            project_id: The project; empty for what belongs to the whole account.
        """
        if not self.allows(action):
            message = f"the key's scope is {self.scope.value!r}, which does not allow this"
            raise ForbiddenError(message, scope=self.scope.value, action=action.value)
        if self.project_id is None or self.project_id == project_id:
            return
        # Reading the account is allowed: `ScopedSession` then reaches no project but this one.
        if project_id or action is not Action.READ:
            raise ForbiddenError("the key is for another project", scope="project", action=action.value)
