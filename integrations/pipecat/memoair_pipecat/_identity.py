"""Whose memory it is, and which client keeps it."""

import os
from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceAgent, MemoAirVoiceClient

DEFAULT_CLOUD_BASE_URL = "https://backend.memoair.space"
_REQUIRED_ARGUMENTS = ("api_key", "project_id", "agent_id")
_AGENT_ATTRIBUTES = (*_REQUIRED_ARGUMENTS, "user_id", "cloud_base_url", "org_only")


def resolve_user(user: Mapping[str, Any] | None, user_id: str | None, *, required: bool) -> dict[str, Any]:
    """Who calls, ``{"id", "name", "metadata"}``; the client checks the rest of it.

    Raises ValueError where nobody is named or two are, TypeError for what is no dict.
    """
    if user is not None and not isinstance(user, Mapping):
        raise TypeError(f'user must be a dict, {{"id": ...}}, not {type(user).__name__}')
    resolved = dict(user or {})
    if user_id is not None and resolved.setdefault("id", user_id) != user_id:
        raise ValueError('user_id and user["id"] name two callers')
    if resolved.get("id") in (None, ""):
        if required:
            raise ValueError('user={"id": ...} or user_id says who calls; it is missing')
        resolved["id"] = "__org__"  # where only documents are searched, nobody needs to be named
    if not isinstance(resolved["id"], str):
        raise TypeError(f'user["id"] must be a str, not {type(resolved["id"]).__name__}')
    return resolved


def make_client(arguments: Mapping[str, Any]) -> MemoAirVoiceClient:
    """A client of our own, of what the constructor was ``given``. Raises ValueError that names all that is missing."""
    if missing := [name for name in _REQUIRED_ARGUMENTS if arguments.get(name) in (None, "")]:
        raise ValueError(f"{', '.join(missing)} must be given, or a client=")
    return MemoAirVoiceClient(**arguments)


def read_agent(agent: object) -> dict[str, Any]:
    """What an identity object says of itself, by its attributes; what it has not is left out."""
    identity = {name: getattr(agent, name) for name in _AGENT_ATTRIBUTES if hasattr(agent, name)}
    if missing := [name for name in _REQUIRED_ARGUMENTS if name not in identity]:
        raise TypeError(f"agent has no {', '.join(missing)}")
    return identity


def read_environment(environ: Mapping[str, str] | None) -> dict[str, Any]:
    """What the environment says, as the constructor takes it. Raises ValueError for a variable that can't be."""
    arguments = MemoAirVoiceAgent.read_env(environ)
    if binary := (os.environ if environ is None else environ).get("MEMOAIR_RUNTIME_BINARY"):
        arguments["runtime_binary"] = binary
    return arguments
