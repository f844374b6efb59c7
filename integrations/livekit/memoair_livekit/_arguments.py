"""The arguments of the agent: checked when it is constructed, before there is a call."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from memoair_livekit._clients import ClientReference, GivenClient, SharedClient, client_key
from memoair_voice import MemoAirVoiceClient
from memoair_voice.integration import IDENTITY_FIELDS, complete_identity, find_missing, resolve_user

# A runtime stays this long after the call, so that a caller who is cut off and calls again finds it running.
_RUNTIME_IDLE_TTL_S = 10.0


def check_milliseconds(**values: float) -> None:
    """Raise ValueError unless all values are positive numbers."""
    for name, value in values.items():
        if isinstance(value, bool) or not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive, not {value}")


def resolve_caller(
    agent: Any, user_id: str | None, name: str | None, metadata: Mapping[str, Any] | None, *, required: bool
) -> dict[str, Any]:
    """Return the caller as ``{"id", "name", "metadata"}``, without what is unknown.

    Raises:
        TypeError: If an argument has the wrong type, or if there is no id although one is ``required``.
        ValueError: If the id is empty.
    """
    user_id = getattr(agent, "user_id", None) if user_id is None else user_id
    if user_id is None and required:
        raise TypeError("missing user_id: pass it as an argument, or an agent= that has it")
    if user_id is not None and not isinstance(user_id, str):
        raise TypeError(f"user_id must be a str, not {type(user_id).__name__}")
    if user_id == "":
        raise ValueError("user_id must not be empty")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    # LiveKit names a participant without a name "".
    details = {"name": name or None, "metadata": None if metadata is None else dict(metadata)}
    return resolve_user({key: value for key, value in details.items() if value is not None}, user_id, required=required)


def choose_client(
    client: MemoAirVoiceClient | None,
    agent: Any,
    *,
    cloud_base_url: str | None,
    org_only: bool,
    identity: Mapping[str, Any],
    runtime_port_range: tuple[int, int],
    options: Mapping[str, Any],
) -> tuple[Callable[[], ClientReference], Hashable, dict[str, Any], MemoAirVoiceClient]:
    """Return a function that takes the client for a call, a key that is equal for the same one, and the identity.

    The fourth part is a client like it, with which nothing may be started: nothing would end it.

    Args:
        client: The client of the application, or None.
        agent: An object with the identity, or None.
        cloud_base_url: The URL of the cloud.
        org_only: Whether only the organization's documents are searched.
        identity: The parts of the identity that were passed.
        runtime_port_range: The first and the last port of runtimes.
        options: More arguments for the client.

    Raises:
        TypeError: If a part of the identity is missing, or if ``client`` has the wrong type.
        ValueError: If an argument is invalid, or contradicts ``client``.
    """
    completed = complete_identity(agent, cloud_base_url=cloud_base_url, org_only=org_only, **identity)
    if client is not None:
        if not isinstance(client, MemoAirVoiceClient):
            raise TypeError(f"client must be a memoair_voice.MemoAirVoiceClient, not {type(client).__name__}")
        # A client has a URL, and the default of the argument is no wish.
        given = {**identity, **options, "org_only": org_only or None, "agent": agent}
        if unused := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(unused)} cannot be combined with client=; pass it to MemoAirVoiceClient")
        return (lambda: GivenClient(client)), id(client), completed, client
    if missing := find_missing(completed, IDENTITY_FIELDS):
        raise TypeError(f"missing {', '.join(missing)}: pass them as arguments, or an agent= that has them")
    first_port, last_port = runtime_port_range
    arguments = {
        **completed,
        **options,
        "runtime_port_range": runtime_port_range,
        # One user per port, so that a new call never evicts the runtime of a call in progress.
        "max_concurrent_users": max(1, last_port - first_port + 1),
        "runtime_idle_ttl_s": _RUNTIME_IDLE_TTL_S,
    }
    # Validate the arguments now. Constructing a client starts nothing.
    checked = MemoAirVoiceClient(**arguments)
    return (lambda: SharedClient(arguments)), client_key(arguments), completed, checked
