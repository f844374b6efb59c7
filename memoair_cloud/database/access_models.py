"""The tables of who accesses the server: sessions of the dashboard, signing secrets, and the audit log."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import AccountOwned, Base, ProjectOwned


class DashboardSession(AccountOwned, Base):
    """Someone who is signed in to the dashboard with a key. Only the hash of the session's token is stored."""

    __tablename__ = "dashboard_sessions"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]

    __table_args__ = (Index(None, "key_id"),)


class SigningSecret(Base):
    """A secret with which the servers of this database sign cookies and forms. It is replaced after some time."""

    __tablename__ = "signing_secrets"

    id: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    created_at: Mapped[datetime]


class AuditEntry(ProjectOwned, Base):
    """A record of who read or changed what about a caller, or changed of an agent."""

    __tablename__ = "audit_entries"

    at: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    actor_kind: Mapped[str]  # "key", or "proxy" for a person that a proxy authenticated
    actor_id: Mapped[str]  # the key's id, or the name that the proxy gave
    actor_name: Mapped[str]  # the key's name and first characters; empty for a proxy's user
    action: Mapped[str]
    # The id of the memory or session, if the action was about one, until the user is erased; of an agent's prompt, the
    # version or the label.
    target: Mapped[str | None]
    user_id: Mapped[str | None]  # None once the user is erased, and if the action was not about one
    # By which the entries of an erased user can be found; empty if the action was not about one.
    user_digest: Mapped[str] = mapped_column(String(64))
    agent_id: Mapped[str | None]  # the agent that was changed, if the action was about one
    details: Mapped[dict[str, Any] | None]  # from which version to which, for example

    __table_args__ = (
        Index(None, "project_id", "user_digest", "at", "id"),
        # Without it, the rows of an erased user could be found only by reading all of them.
        Index("ix_audit_entries_user_id", "project_id", "user_id"),
        Index("ix_audit_entries_agent_id", "project_id", "agent_id", "at", "id"),
    )
