"""The arguments of the processor: checked when it is constructed, before there is a call."""

from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceClient
from memoair_voice.integration import IDENTITY_FIELDS, complete_identity, find_missing


def check_positive(**values: float) -> None:
    """Raise ValueError or TypeError unless all values are positive, finite numbers."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, not {type(value).__name__}")
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, not {value}")


def choose_identity(
    agent: object | None,
    identity: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    cloud_base_url: str | None,
    org_only: bool,
) -> dict[str, Any]:
    """Return the identity of a client, completed from ``agent``.

    Args:
        agent: An object with the identity, or None.
        identity: The parts of the identity that were passed.
        options: Settings that an agent may have, too.
        cloud_base_url: The URL of the cloud.
        org_only: Whether only the organization's documents are searched.

    Raises:
        ValueError: If a part was passed together with an agent that has it.
        TypeError: If the agent lacks a part.
    """
    if agent is not None:
        if duplicates := [field for field, value in identity.items() if value is not None]:
            raise ValueError(f"{', '.join(duplicates)} must not be passed together with agent=, which has it")
        if missing := [field for field in IDENTITY_FIELDS if not hasattr(agent, field)]:
            raise TypeError(f"agent must have the attributes {', '.join(missing)}")
    return complete_identity(agent, cloud_base_url=cloud_base_url, org_only=org_only, **identity, **options)


def choose_client(
    client: MemoAirVoiceClient | None, identity: Mapping[str, Any], options: Mapping[str, Any]
) -> MemoAirVoiceClient:
    """Return the client that was passed, or a new one.

    Args:
        client: The client of the application, or None.
        identity: The identity, completed.
        options: More arguments for a client.

    Raises:
        ValueError: If a part of the identity is missing, or if arguments contradict ``client``.
        TypeError: If ``client`` has the wrong type.
    """
    if client is None:
        required = {name: value or None for name, value in identity.items()}
        if missing := find_missing(required):
            raise ValueError(f"missing {', '.join(missing)}: pass them as arguments, or pass a client=")
        return MemoAirVoiceClient(**identity, **options)
    if not isinstance(client, MemoAirVoiceClient):
        raise TypeError(f"client must be a memoair_voice.MemoAirVoiceClient, not {type(client).__name__}")
    # A client has a URL, and the default of the argument is no wish.
    given = {name: value for name, value in {**identity, **options}.items() if name != "cloud_base_url"}
    if unused := [field for field, value in given.items() if value]:
        raise ValueError(f"{', '.join(unused)} cannot be combined with client=; pass it to MemoAirVoiceClient")
    return client
