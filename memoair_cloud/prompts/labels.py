"""The labels of an agent's prompt, such as ``production``: which version each points to, and how it came to that."""

from datetime import datetime

from sqlalchemy import select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.prompt_models import PromptLabel, PromptLabelMove
from memoair_cloud.errors import NotFoundError
from memoair_cloud.prompts.agents import lock_agent
from memoair_cloud.prompts.moves import LabelMover
from memoair_cloud.prompts.versions import AgentPrompt, load_prompt
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.grants import Action

_BY_NAME = PageOrder[PromptLabel]((PromptLabel.name,), (str,), lambda row: (row.name,))
_LATEST_FIRST = PageOrder[PromptLabelMove](
    (PromptLabelMove.moved_at, PromptLabelMove.id),
    (datetime, str),
    lambda row: (row.moved_at, row.id),
    descending=True,
)


def get_labeled_prompt(tenant: Tenant, label: str) -> AgentPrompt:
    """Return the version of an agent's prompt that a label points to. A key for ingesting only may do that, too.

    Raises:
        NotFoundError: If there is no such label.
    """
    agent_id = tenant.require_agent()
    with tenant.begin_read(Action.FETCH_PROMPT) as session:
        number = session.scalar(
            select(PromptLabel.number).where(PromptLabel.agent_id == agent_id, PromptLabel.name == label)
        )
        if number is None:
            raise NotFoundError("the agent's prompt has no such label", resource="label")
        return load_prompt(session, agent_id, number)


def find_label(tenant: Tenant, name: str) -> PromptLabel | None:
    """Return a label of an agent's prompt; None if it has no such label."""
    agent_id = tenant.require_agent()
    with tenant.begin_read() as session:
        return session.scalar(select(PromptLabel).where(PromptLabel.agent_id == agent_id, PromptLabel.name == name))


def find_rollback_version(tenant: Tenant, name: str) -> int | None:
    """Return the version that a rollback of a label leads to; None if there is no label, or no version before."""
    agent_id = tenant.require_agent()
    with tenant.begin_read() as session:
        before = LabelMover(session, agent_id, name).find_before()
        return None if before is None else before.number


def list_labels(tenant: Tenant, cursor: str | None, limit: int) -> ResultPage[PromptLabel]:
    """Return a page of the labels of an agent's prompt, sorted by name.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    agent_id = tenant.require_agent()
    with tenant.begin_read() as session:
        statement = select(PromptLabel).where(PromptLabel.agent_id == agent_id)
        return _BY_NAME.fetch_page(session, statement, cursor, limit)


def list_label_moves(tenant: Tenant, name: str, cursor: str | None, limit: int) -> ResultPage[PromptLabelMove]:
    """Return a page of the moves of a label, latest first. Those of a label that was removed stay.

    Raises:
        NotFoundError: If there was never such a label.
        InvalidRequestError: If the cursor is invalid.
    """
    agent_id = tenant.require_agent()
    with tenant.begin_read() as session:
        statement = select(PromptLabelMove).where(PromptLabelMove.agent_id == agent_id, PromptLabelMove.name == name)
        page = _LATEST_FIRST.fetch_page(session, statement, cursor, limit)
        if not page.rows and cursor is None:
            raise NotFoundError("the agent's prompt has no such label", resource="label")
        return page


def move_label(tenant: Tenant, name: str, version: int, expected_version: int | None = None) -> PromptLabel:
    """Point a label to a version, and create it if need be.

    Args:
        tenant: The agent.
        name: The label.
        version: The version.
        expected_version: Where the label must point to before, 0 if it must not exist; None if it does not matter.

    Raises:
        NotFoundError: If the version does not exist.
        ConflictError: If the label points to another version than expected, or there are too many labels.
    """
    agent_id = tenant.require_agent()
    with tenant.begin_write() as session:
        lock_agent(session, agent_id)
        mover = LabelMover(session, agent_id, name)
        mover.check_expected(expected_version)
        return mover.move_to(version)


def roll_back_label(tenant: Tenant, name: str, expected_version: int | None = None) -> PromptLabel:
    """Point a label to the version that it had before. Repeated, it goes further back; it also undoes a removal.

    Args:
        tenant: The agent.
        name: The label.
        expected_version: Where the label must point to before, as in `move_label`.

    Raises:
        NotFoundError: If there was never such a label.
        ConflictError: If it had no other version before, or points to another version than expected.
    """
    agent_id = tenant.require_agent()
    with tenant.begin_write() as session:
        lock_agent(session, agent_id)
        mover = LabelMover(session, agent_id, name)
        mover.check_expected(expected_version)
        return mover.roll_back()


def remove_label(tenant: Tenant, name: str, expected_version: int | None = None) -> PromptLabel:
    """Remove a label, and return what it was. Its moves stay.

    Args:
        tenant: The agent.
        name: The label.
        expected_version: Where the label must point to before, as in `move_label`.

    Raises:
        NotFoundError: If there is no such label.
        ConflictError: If it points to another version than expected.
    """
    agent_id = tenant.require_agent()
    with tenant.begin_write() as session:
        lock_agent(session, agent_id)
        mover = LabelMover(session, agent_id, name)
        mover.check_expected(expected_version)
        return mover.remove()
