"""The LiveKit job that a call runs in, if there is one."""

from collections.abc import Callable, Coroutine

from livekit.agents import get_job_context


def find_call_id() -> str | None:
    """Return an id for the call, the same for all agents of the job: its room and its job. None without a job.

    A room may have the same name in the next call of the same caller; a job never has the same id.
    """
    try:
        job = get_job_context().job
    except RuntimeError:  # a test, or an application that does not use LiveKit's workers
        return None
    return ":".join(filter(None, ("livekit", job.room.name, job.id)))


def add_shutdown_callback(callback: Callable[[], Coroutine[None, None, None]]) -> None:
    """Let the job await a callback before its process ends. Without a job, do nothing."""
    try:
        job_context = get_job_context()
    except RuntimeError:
        return
    job_context.add_shutdown_callback(callback)
