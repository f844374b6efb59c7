"""Whose memory it is: from arguments, from an identity that has them, from the environment."""

from typing import Any

from memoair_voice import MemoAirVoiceAgent

_IDENTITY_FIELDS = ("api_key", "project_id", "agent_id", "user_id")


def resolve_identity(agent: Any, **arguments: str | None) -> dict[str, str]:
    """Key, project, agent and user, as they are given, or else as the ``agent`` has them.

    Raises TypeError for one that neither has, and ValueError for one that is empty; the client checks the rest.
    """
    identity = {
        name: getattr(agent, name, None) if arguments[name] is None else arguments[name] for name in _IDENTITY_FIELDS
    }
    if missing := [name for name, value in identity.items() if value is None]:
        raise TypeError(f"{', '.join(missing)} must be given, or be part of agent=")
    if mistyped := [name for name, value in identity.items() if not isinstance(value, str)]:
        raise TypeError(f"{mistyped[0]} must be a str, not {type(identity[mistyped[0]]).__name__}")
    if empty := [name for name, value in identity.items() if not value]:
        raise ValueError(f"{empty[0]} is empty")
    return {name: str(value) for name, value in identity.items()}


def read_environment(overrides: dict[str, Any]) -> dict[str, Any]:
    """What is ``given``, and what else the environment says; raises ValueError that names all that is missing."""
    if overrides.get("agent") is not None:  # which says all of it
        return overrides
    arguments = MemoAirVoiceAgent.read_env() | overrides
    if missing := [f"MEMOAIR_{name.upper()}" for name in _IDENTITY_FIELDS if arguments.get(name) is None]:
        raise ValueError(f"{', '.join(missing)} must be set")
    return arguments
