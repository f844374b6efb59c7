"""What figures are counted by: the agent, and the version of its prompt."""

from typing import NamedTuple


class PromptKey(NamedTuple):
    """A version of an agent's prompt.

    Attributes:
        agent_id: The agent; None for calls and searches without one.
        version: The version; None where the application named none.
    """

    agent_id: str | None
    version: int | None
