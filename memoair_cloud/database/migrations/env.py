"""Alembic's entry point: runs migrations on the connection of `migrate`, inside its transaction."""

from alembic import context

from memoair_cloud.database import access_models, recall_trace_models, upload_models  # noqa: F401 - for their tables
from memoair_cloud.database.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
