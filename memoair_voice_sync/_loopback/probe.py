"""The check of a runtime's identity."""

from memoair_voice_sync._loopback.transport import RuntimeTransport
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The message of a memory that is used after `close`.
MEMORY_CLOSED = "the memory is closed"


def check_runtime(transport: RuntimeTransport, project_id: str, user_id: str, deadline: float) -> None:
    """Return if a runtime of this project and user answers. Nothing else may ever be sent to another one.

    Raises `RuntimeUnreachableError` if nothing listens, ``runtime.identity_mismatch`` if the runtime of another project
    or user does, and other errors unchanged.
    """
    health = transport.health(deadline)
    if (health.get("workspaceId"), health.get("userId")) != (project_id, user_id):
        message = (
            f"the runtime at {transport.url} serves another project or user; "
            "use another runtime_url for each user, or port 0 for a free port"
        )
        raise MemoAirVoiceMemoryError("runtime.identity_mismatch", message, 409)
