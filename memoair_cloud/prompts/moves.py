"""How labels move: to a version, back to what they pointed to before, and away.

| move      | the label points to          | a rollback then restores                 |
|-----------|------------------------------|------------------------------------------|
| to N      | N                            | what it pointed to before                |
| rollback  | what it pointed to before    | what that one had replaced               |
| removal   | nothing                      | what it pointed to                       |

So a rollback that is repeated goes further back, and never returns to the version that was wrong.
"""

from datetime import datetime, timedelta

import attrs
from sqlalchemy import func, select

from memoair_cloud.audit.log import AuditAction, record_agent_change
from memoair_cloud.database.prompt_models import PromptLabel, PromptLabelMove, PromptVersion
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.identifiers import new_id
from memoair_cloud.prompts.agents import describe_actor
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.timestamps import utc_now

MAX_LABELS = 500


@attrs.define
class LabelMover:
    """Moves one label of an agent, in a transaction that has locked the agent.

    Attributes:
        session: The session of the transaction.
        agent_id: The agent.
        name: The label.
        now: The time.
    """

    session: ScopedSession
    agent_id: str
    name: str
    now: datetime = attrs.field(factory=lambda: utc_now())

    def check_expected(self, expected_version: int | None) -> None:
        """Raise `ConflictError` if the label does not point to the version that a sender expects.

        Args:
            expected_version: The version; 0 for a label that does not exist, None for any.
        """
        label = self._find_label()
        actual = 0 if label is None else label.number
        if expected_version is not None and expected_version != actual:
            has = "does not exist" if label is None else f"points to version {actual}"
            message = f"the label {has}, not to version {expected_version} as expected: someone else has moved it"
            raise ConflictError(message, version=actual, expectedVersion=expected_version)

    def move_to(self, number: int) -> PromptLabel:
        """Point the label to a version, and return it. Nothing is recorded if it points there already.

        Raises:
            NotFoundError: If the version does not exist.
            ConflictError: If it would be one label too many.
        """
        is_version = PromptVersion.agent_id == self.agent_id, PromptVersion.number == number
        if self.session.scalar(select(PromptVersion.number).where(*is_version)) is None:
            raise NotFoundError("the agent's prompt has no such version", resource="prompt")
        label = self._find_label()
        if label is not None and label.number == number:
            return label
        if label is None:
            self._check_count()
        last = self._find_last_move()
        # What a rollback restores: where the label points now, or pointed to before it was removed.
        before = last if last is None or last.number is not None else self._find_move(last.back_to)
        back_to = before if before is None or before.number != number else self._find_move(before.back_to)
        return self._record(label, last, number, back_to, AuditAction.MOVED_LABEL)

    def roll_back(self) -> PromptLabel:
        """Point the label to the version that it had before, and return it. This also undoes a removal.

        Raises:
            NotFoundError: If there was never such a label.
            ConflictError: If it had no other version before.
        """
        last = self._find_last_move()
        if last is None:
            raise NotFoundError("the agent's prompt has no such label", resource="label")
        before = self._find_move(last.back_to)
        if before is None or before.number is None:  # no move leads back to a removal
            raise ConflictError("the label had no other version before", version=last.number)
        back_to = self._find_move(before.back_to)
        return self._record(self._find_label(), last, before.number, back_to, AuditAction.ROLLED_BACK_LABEL)

    def find_before(self) -> PromptLabelMove | None:
        """Return the move that a rollback restores; None if it cannot be rolled back. The agent need not be locked."""
        last = self._find_last_move()
        return None if last is None else self._find_move(last.back_to)

    def remove(self) -> PromptLabel:
        """Remove the label, and return what it was.

        Raises:
            NotFoundError: If there is no such label.
        """
        label, last = self._find_label(), self._find_last_move()
        if label is None:
            raise NotFoundError("the agent's prompt has no such label", resource="label")
        self._add_move(last, None, last, AuditAction.REMOVED_LABEL)
        self.session.delete(label)
        return label

    def _record(
        self,
        label: PromptLabel | None,
        last: PromptLabelMove | None,
        number: int,
        back_to: PromptLabelMove | None,
        action: AuditAction,
    ) -> PromptLabel:
        move = self._add_move(last, number, back_to, action)
        if label is None:
            label = PromptLabel(project_id=self.session.scope.project_id, agent_id=self.agent_id, name=self.name)
            self.session.add(label)
        label.number, label.moved_at, label.moved_by = number, move.moved_at, move.moved_by
        return label

    def _add_move(
        self,
        last: PromptLabelMove | None,
        number: int | None,
        back_to: PromptLabelMove | None,
        action: AuditAction,
    ) -> PromptLabelMove:
        replaced = None if last is None else last.number
        move = PromptLabelMove(
            project_id=self.session.scope.project_id,
            agent_id=self.agent_id,
            id=new_id("move"),
            name=self.name,
            number=number,
            replaced=replaced,
            is_rollback=action is AuditAction.ROLLED_BACK_LABEL,
            back_to=None if back_to is None else back_to.id,
            # The last move is found by its time.
            moved_at=self.now if last is None else max(self.now, last.moved_at + timedelta(microseconds=1)),
            moved_by=describe_actor(self.session.scope.actor),
        )
        self.session.add(move)
        record_agent_change(self.session, action, self.agent_id, self.name, {"from": replaced, "to": number})
        return move

    def _find_label(self) -> PromptLabel | None:
        return self.session.scalar(
            select(PromptLabel).where(PromptLabel.agent_id == self.agent_id, PromptLabel.name == self.name)
        )

    def _find_last_move(self) -> PromptLabelMove | None:
        moves = select(PromptLabelMove).where(
            PromptLabelMove.agent_id == self.agent_id, PromptLabelMove.name == self.name
        )
        latest_first = moves.order_by(PromptLabelMove.moved_at.desc(), PromptLabelMove.id.desc())
        return self.session.scalar(latest_first.limit(1))

    def _find_move(self, move_id: str | None) -> PromptLabelMove | None:
        if move_id is None:
            return None
        return self.session.scalar(
            select(PromptLabelMove).where(PromptLabelMove.agent_id == self.agent_id, PromptLabelMove.id == move_id)
        )

    def _check_count(self) -> None:
        count = self.session.scalar(select(func.count(PromptLabel.name)).where(PromptLabel.agent_id == self.agent_id))
        if (count or 0) >= MAX_LABELS:
            raise ConflictError(f"the agent's prompt has {MAX_LABELS} labels already: remove one first")
