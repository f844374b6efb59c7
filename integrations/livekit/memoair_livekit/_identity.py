"""The identity of an agent (key, project, agent, user): from arguments, an object, or the environment."""

from typing import Any

from memoair_voice import MemoAirVoiceAgent

_IDENTITY_FIELDS = ("api_key", "project_id", "agent_id", "user_id")


def resolve_identity(agent: Any, **arguments: str | None) -> dict[str, str]:
    """Return key, project, agent and user: each from the arguments, or else from the attributes of ``agent``.

    Raises TypeError if one is missing or not a string, ValueError if one is empty. The client checks the rest.
    """
    identity = {
        name: getattr(agent, name, None) if arguments[name] is None else arguments[name] for name in _IDENTITY_FIELDS
    }
    if missing := [name for name, value in identity.items() if value is None]:
        raise TypeError(f"missing {', '.join(missing)}: pass them as arguments, or an agent= that has them")
    if mistyped := [name for name, value in identity.items() if not isinstance(value, str)]:
        raise TypeError(f"{mistyped[0]} must be a str, not {type(identity[mistyped[0]]).__name__}")
    if empty := [name for name, value in identity.items() if not value]:
        raise ValueError(f"{empty[0]} must not be empty")
    return {name: str(value) for name, value in identity.items()}


def read_environment(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the constructor: ``overrides``, completed from the environment.

    Raises ValueError if required variables are missing; the message names all of them.
    """
    if overrides.get("agent") is not None:  # it has the complete identity
        return overrides
    arguments = MemoAirVoiceAgent.read_env() | overrides
    if missing := [f"MEMOAIR_{name.upper()}" for name in _IDENTITY_FIELDS if arguments.get(name) is None]:
        raise ValueError(f"{', '.join(missing)} must be set")
    return arguments
