"""The identity of the memory (client and user), from arguments, an object, or the environment."""

import os
from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceAgent, MemoAirVoiceClient

DEFAULT_CLOUD_BASE_URL = "https://backend.memoair.space"
_REQUIRED_ARGUMENTS = ("api_key", "project_id", "agent_id")
_AGENT_ATTRIBUTES = (*_REQUIRED_ARGUMENTS, "user_id", "cloud_base_url", "org_only")


def resolve_user(user: Mapping[str, Any] | None, user_id: str | None, *, required: bool) -> dict[str, Any]:
    """Return the user as ``{"id", "name", "metadata"}``. The client checks name and metadata.

    Raises ValueError if there is no id or there are two different ones, TypeError for a wrong type.
    """
    if user is not None and not isinstance(user, Mapping):
        raise TypeError(f'user must be a dict, {{"id": ...}}, not {type(user).__name__}')
    resolved = dict(user or {})
    if user_id is not None and resolved.setdefault("id", user_id) != user_id:
        raise ValueError('user_id and user["id"] name different users')
    if resolved.get("id") in (None, ""):
        if required:
            raise ValueError('user={"id": ...} or user_id is required')
        resolved["id"] = "__org__"  # documents belong to no user, so none is needed
    if not isinstance(resolved["id"], str):
        raise TypeError(f'user["id"] must be a str, not {type(resolved["id"]).__name__}')
    return resolved


def make_client(arguments: Mapping[str, Any]) -> MemoAirVoiceClient:
    """Create a client. Raises ValueError if required arguments are missing; the message names all of them."""
    if missing := [name for name in _REQUIRED_ARGUMENTS if arguments.get(name) in (None, "")]:
        raise ValueError(f"missing {', '.join(missing)}: pass them as arguments, or pass a client=")
    return MemoAirVoiceClient(**arguments)


def read_agent(agent: object) -> dict[str, Any]:
    """Return the attributes of an identity object. Optional ones that it does not have are left out."""
    identity = {name: getattr(agent, name) for name in _AGENT_ATTRIBUTES if hasattr(agent, name)}
    if missing := [name for name in _REQUIRED_ARGUMENTS if name not in identity]:
        raise TypeError(f"agent must have the attributes {', '.join(missing)}")
    return identity


def read_environment(environ: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the arguments of the constructor that the environment sets. Raises ValueError for an invalid value."""
    arguments = MemoAirVoiceAgent.read_env(environ)
    if binary := (os.environ if environ is None else environ).get("MEMOAIR_RUNTIME_BINARY"):
        arguments["runtime_binary"] = binary
    return arguments
