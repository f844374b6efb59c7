"""The agent that owns prompts: who writes to its prompts waits for its row."""

from sqlalchemy import select

from memoair_cloud.database.models import Agent
from memoair_cloud.errors import NotFoundError
from memoair_cloud.tenancy.scoped import Actor, ScopedSession


def lock_agent(session: ScopedSession, agent_id: str) -> None:
    """Lock the row of an agent until the end of the transaction. It is the only lock that the transaction takes.

    So versions get numbers without gaps, and of two moves of a label the second one knows the first.

    Raises:
        NotFoundError: If the agent does not exist, or was deleted while this waited.
    """
    statement = select(Agent.id).where(Agent.id == agent_id).with_for_update(key_share=True)
    if session.scalar(statement) is None:
        raise NotFoundError("unknown agent in this project", resource="agent")


def describe_actor(actor: Actor | None) -> str:
    """Return who changes something, as people read it: the name of a key, or that of a person."""
    return "server" if actor is None else actor.name or actor.id
