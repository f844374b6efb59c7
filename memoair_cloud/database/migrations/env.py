"""Alembic's entry point: runs migrations on the connection of `migrate`, inside its transaction."""

from alembic import context

from memoair_cloud.database import (  # noqa: F401 - fill the metadata
    access_models,
    evaluation_models,
    models,
    outcome_models,
    prompt_models,
    recall_trace_models,
    upload_models,
)
from memoair_cloud.database.base import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
