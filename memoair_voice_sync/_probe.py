"""Asking a runtime who it is."""

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._transport import RuntimeTransport

# What a memory says that is used after its end.
CLOSED = "the memory has been closed"


def check_runtime(transport: RuntimeTransport, project_id: str, user_id: str, deadline: float) -> None:
    """Return if a runtime of this project and user answers; nothing else may ever be sent to another's.

    Raises `RuntimeUnreachable` where nothing listens, ``runtime.identity_mismatch`` where another caller's runtime
    does, and other errors as they come.
    """
    health = transport.call("GET", "/v1/runtime/health", None, deadline)
    if (health.get("workspaceId"), health.get("userId")) != (project_id, user_id):
        message = "the runtime that listens there serves another project or user"
        raise MemoAirVoiceMemoryError("runtime.identity_mismatch", message, 409)
