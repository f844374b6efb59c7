"""The versions of an agent's prompt: pushed, never changed, and read one by one or as a list."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs
from sqlalchemy import select
from sqlalchemy.orm import defer

from memoair_cloud.audit.log import AuditAction, record_agent_change
from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.prompt_models import PromptLabel, PromptVersion
from memoair_cloud.errors import ConflictError, InvalidRequestError, NotFoundError
from memoair_cloud.prompts.agents import describe_actor, lock_agent
from memoair_cloud.prompts.moves import LabelMover
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.prompt_template import PromptTemplateError, find_placeholders
from memoair_protocol.text_diff import diff_texts
from memoair_protocol.timestamps import utc_now

_LATEST_FIRST = PageOrder[PromptVersion]((PromptVersion.number,), (int,), lambda row: (row.number,), descending=True)


@attrs.frozen
class PromptSummary:
    """A version of an agent's prompt, without its text.

    Attributes:
        agent_id: The agent.
        version: Its number, from 1.
        sha256: The SHA-256 of its text, in UTF-8.
        placeholders: The names of its placeholders, in the order of their first appearance.
        notes: What its author noted.
        created_at: When it was pushed.
        created_by: Who pushed it: the name of a key, or of a person.
        labels: The labels that point to it, sorted.
    """

    agent_id: str
    version: int
    sha256: str
    placeholders: Sequence[str]
    notes: str
    created_at: datetime
    created_by: str
    labels: Sequence[str]


@attrs.frozen
class AgentPrompt(PromptSummary):
    """A version of an agent's prompt.

    Attributes:
        text: The text, with its placeholders, exactly as it was pushed.
    """

    text: str = attrs.field(repr=False)


@attrs.frozen
class NewPrompt:
    """A text to push.

    Attributes:
        text: The text.
        notes: What its author notes.
        labels: The labels to point to it.
        expected_version: The latest version that the author knew, 0 for none; None if it does not matter.
    """

    text: str = attrs.field(repr=False)
    notes: str = ""
    labels: Sequence[str] = ()
    expected_version: int | None = None


@attrs.frozen
class PushedPrompt:
    """What a push has led to.

    Attributes:
        prompt: The version with the text.
        is_new: Whether the push has created it; False if the latest version had the text already.
    """

    prompt: AgentPrompt
    is_new: bool


@attrs.frozen
class PromptDiff:
    """The difference between two versions.

    Attributes:
        before: The version to compare with; 0 for an empty text.
        after: The version that is compared.
        diff: The difference, as `diff_texts` returns it; empty if the texts are the same.
    """

    before: int
    after: int
    diff: str = attrs.field(repr=False)


def push_prompt(tenant: Tenant, new: NewPrompt, now: datetime | None = None) -> PushedPrompt:
    """Add a version, unless the latest one has the same text, and point labels to it.

    So a push can be repeated: it then finds its text as the latest version, whatever version it expects.

    Args:
        tenant: The agent.
        new: The text.
        now: The time; by default that of the clock.

    Raises:
        InvalidRequestError: If a placeholder of the text is malformed.
        ConflictError: If the latest version is another one than expected, or there would be too many labels.
        NotFoundError: If the agent does not exist.
    """
    agent_id = tenant.require_agent()
    try:
        placeholders = find_placeholders(new.text)
    except PromptTemplateError as error:
        raise InvalidRequestError(f"text: {error}", field="text") from None
    digest = hashlib.sha256(new.text.encode()).hexdigest()
    now = utc_now() if now is None else now
    with tenant.begin_write() as session:
        lock_agent(session, agent_id)
        latest = find_latest_prompt(session, agent_id)
        is_new = latest is None or latest.sha256 != digest
        number = 0 if latest is None else latest.number
        if is_new:
            if new.expected_version is not None and new.expected_version != number:
                message = f"the latest version is {number}, not {new.expected_version} as expected: compare them first"
                raise ConflictError(message, version=number, expectedVersion=new.expected_version)
            number += 1
            session.add(_make_row(session, agent_id, number, new, digest, placeholders, now))
            session.flush()  # labels refer to it
            record_agent_change(
                session, AuditAction.PUSHED_PROMPT, agent_id, str(number), {"from": number - 1 or None, "to": number}
            )
        for name in dict.fromkeys(new.labels):
            LabelMover(session, agent_id, name, now).move_to(number)
        session.flush()
        return PushedPrompt(load_prompt(session, agent_id, number), is_new)


def get_prompt(tenant: Tenant, version: int) -> AgentPrompt:
    """Return a version of the prompt of a tenant's agent.

    Raises:
        NotFoundError: If it does not exist.
    """
    agent_id = tenant.require_agent()
    with tenant.begin_read() as session:
        return load_prompt(session, agent_id, version)


def get_latest_prompt(tenant: Tenant) -> AgentPrompt | None:
    """Return the latest version of the prompt of a tenant's agent; None if it has none."""
    agent_id = tenant.require_agent()
    with tenant.begin_read() as session:
        row = find_latest_prompt(session, agent_id)
        return None if row is None else load_prompt(session, agent_id, row.number)


def list_prompts(tenant: Tenant, cursor: str | None, limit: int) -> ResultPage[PromptSummary]:
    """Return a page of the versions of the prompt of a tenant's agent, latest first, without their texts.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    agent_id = tenant.require_agent()
    statement = select(PromptVersion).where(PromptVersion.agent_id == agent_id)
    with tenant.begin_read() as session:
        page = _LATEST_FIRST.fetch_page(
            session, statement.options(defer(PromptVersion.text, raiseload=True)), cursor, limit
        )
        labels = _load_labels(session, agent_id, [row.number for row in page.rows])
        return ResultPage([_summarize(row, labels.get(row.number, ())) for row in page.rows], page.next_cursor)


def diff_prompts(tenant: Tenant, version: int, against: int | None) -> PromptDiff:
    """Return how a version differs from another one.

    Args:
        tenant: The agent.
        version: The version.
        against: The version to compare it with; 0 for an empty text, None for the version before it.

    Raises:
        NotFoundError: If one of them does not exist.
    """
    before = version - 1 if against is None else against
    texts = [get_prompt(tenant, number).text if number else "" for number in (before, version)]
    names = [f"version {number}" for number in (before, version)]
    return PromptDiff(before, version, diff_texts(texts[0], texts[1], names[0], names[1]))


def load_prompt(session: ScopedSession, agent_id: str, number: int) -> AgentPrompt:
    """Return a version of an agent's prompt; raise `NotFoundError` if it does not exist."""
    row = session.scalar(
        select(PromptVersion).where(PromptVersion.agent_id == agent_id, PromptVersion.number == number)
    )
    if row is None:
        raise NotFoundError("the agent's prompt has no such version", resource="prompt")
    summary = _summarize(row, _load_labels(session, agent_id, [number]).get(number, ()))
    return AgentPrompt(**attrs.asdict(summary, recurse=False), text=row.text)


def find_latest_prompt(session: ScopedSession, agent_id: str) -> PromptVersion | None:
    """Return the row of the latest version of an agent's prompt; None if it has none."""
    versions = select(PromptVersion).where(PromptVersion.agent_id == agent_id)
    return session.scalar(versions.order_by(PromptVersion.number.desc()).limit(1))


def _make_row(
    session: ScopedSession,
    agent_id: str,
    number: int,
    new: NewPrompt,
    digest: str,
    placeholders: Sequence[str],
    now: datetime,
) -> PromptVersion:
    return PromptVersion(
        project_id=session.scope.project_id,
        agent_id=agent_id,
        number=number,
        text=new.text,
        sha256=digest,
        placeholders=list(placeholders),
        notes=new.notes,
        created_at=now,
        created_by=describe_actor(session.scope.actor),
    )


def _load_labels(session: ScopedSession, agent_id: str, numbers: Iterable[int]) -> dict[int, list[str]]:
    statement = select(PromptLabel).where(PromptLabel.agent_id == agent_id, PromptLabel.number.in_(list(numbers)))
    found: dict[int, list[str]] = {}
    for label in session.scalars(statement.order_by(PromptLabel.name)):
        found.setdefault(label.number, []).append(label.name)
    return found


def _summarize(row: PromptVersion, labels: Sequence[str]) -> PromptSummary:
    return PromptSummary(
        row.agent_id,
        row.number,
        row.sha256,
        tuple(row.placeholders),
        row.notes,
        row.created_at,
        row.created_by,
        tuple(labels),
    )
