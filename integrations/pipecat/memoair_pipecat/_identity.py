"""Whose memory it is, and which client keeps it."""

import os
from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceAgent, MemoAirVoiceClient

DEFAULT_CLOUD_BASE_URL = "https://backend.memoair.space"
_NEEDED = {"api_key": "MEMOAIR_API_KEY", "project_id": "MEMOAIR_PROJECT_ID", "agent_id": "MEMOAIR_AGENT_ID"}
_OF_AN_AGENT = (*_NEEDED, "user_id", "cloud_base_url", "org_only")


def whose(user: Mapping[str, Any] | None, user_id: str | None, *, needed: bool) -> dict[str, Any]:
    """Who calls, ``{"id", "name", "metadata"}``; the client checks the rest of it.

    Raises ValueError where nobody is named or two are, TypeError for what is no dict.
    """
    if user is not None and not isinstance(user, Mapping):
        raise TypeError(f'user must be a dict, {{"id": ...}}, not {type(user).__name__}')
    who = dict(user or {})
    if user_id is not None and who.setdefault("id", user_id) != user_id:
        raise ValueError('user_id and user["id"] name two callers')
    if who.get("id") in (None, ""):
        if needed:
            raise ValueError('user={"id": ...} or user_id says who calls; it is missing')
        who["id"] = "__org__"  # where only documents are searched, nobody needs to be named
    if not isinstance(who["id"], str):
        raise TypeError(f'user["id"] must be a str, not {type(who["id"]).__name__}')
    return who


def own_client(given: Mapping[str, Any]) -> MemoAirVoiceClient:
    """A client of our own, of what the constructor was ``given``. Raises ValueError that names all that is missing."""
    if missing := [name for name in _NEEDED if given.get(name) in (None, "")]:
        raise ValueError(f"{', '.join(missing)} must be given, or a client=")
    return MemoAirVoiceClient(**given)


def of_agent(agent: object) -> dict[str, Any]:
    """What an identity object says of itself, by its attributes; what it has not is left out."""
    told = {name: getattr(agent, name) for name in _OF_AN_AGENT if hasattr(agent, name)}
    if missing := [name for name in _NEEDED if name not in told]:
        raise TypeError(f"agent has no {', '.join(missing)}")
    return told


def from_environment(environ: Mapping[str, str] | None) -> dict[str, Any]:
    """What the environment says, as the constructor takes it. Raises ValueError for a variable that can't be."""
    told = MemoAirVoiceAgent.read_env(environ)
    if binary := (os.environ if environ is None else environ).get("MEMOAIR_RUNTIME_BINARY"):
        told["runtime_binary"] = binary
    return told
