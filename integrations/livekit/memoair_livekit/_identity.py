"""Whose memory it is: from arguments, from an identity that has them, from the environment."""

from typing import Any

from memoair_voice import MemoAirVoiceAgent

_NAMES = ("api_key", "project_id", "agent_id", "user_id")


def identity_of(agent: Any, **given: str | None) -> dict[str, str]:
    """Key, project, agent and user, as they are given, or else as the ``agent`` has them.

    Raises TypeError for one that neither has, and ValueError for one that is empty; the client checks the rest.
    """
    found = {name: getattr(agent, name, None) if given[name] is None else given[name] for name in _NAMES}
    if missing := [name for name, value in found.items() if value is None]:
        raise TypeError(f"{', '.join(missing)} must be given, or be part of agent=")
    if wrong := [name for name, value in found.items() if not isinstance(value, str)]:
        raise TypeError(f"{wrong[0]} must be a str, not {type(found[wrong[0]]).__name__}")
    if empty := [name for name, value in found.items() if not value]:
        raise ValueError(f"{empty[0]} is empty")
    return {name: str(value) for name, value in found.items()}


def from_environment(given: dict[str, Any]) -> dict[str, Any]:
    """What is ``given``, and what else the environment says; raises ValueError that names all that is missing."""
    if given.get("agent") is not None:  # which says all of it
        return given
    told = MemoAirVoiceAgent.read_env() | given
    if missing := [f"MEMOAIR_{name.upper()}" for name in _NAMES if told.get(name) is None]:
        raise ValueError(f"{', '.join(missing)} must be set")
    return told
