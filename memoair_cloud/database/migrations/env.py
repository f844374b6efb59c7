"""Alembic's entry point: runs migrations on the connection of `migrate`, inside its transaction."""

from alembic import context

from memoair_cloud.database import access_models, models, recall_trace_models  # noqa: F401 - fill the metadata
from memoair_cloud.database.base import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
