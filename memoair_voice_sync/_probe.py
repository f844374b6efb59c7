"""Asking a runtime who it is."""

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._transport import RuntimeTransport

# What a memory says that is used after its end.
MEMORY_CLOSED = "the memory has been closed"


def check_runtime(transport: RuntimeTransport, project_id: str, user_id: str, deadline: float) -> None:
    """Return if a runtime of this project and user answers; nothing else may ever be sent to another's.

    Raises `RuntimeUnreachableError` where nothing listens, ``runtime.identity_mismatch`` where another caller's runtime
    does, and other errors as they come.
    """
    health = transport.health(deadline)
    if (health.get("workspaceId"), health.get("userId")) != (project_id, user_id):
        message = (
            f"the runtime at {transport.url} serves another project or user; "
            "choose another runtime_url for each caller, or port 0 for any that is free"
        )
        raise MemoAirVoiceMemoryError("runtime.identity_mismatch", message, 409)
