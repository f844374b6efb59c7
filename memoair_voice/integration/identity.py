"""Whose memory it is: from arguments, from an object with the identity, or from the environment."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from memoair_protocol.defaults import CLOUD_BASE_URL, ORG_ONLY_USER
from memoair_voice import MemoAirVoiceAgent

IDENTITY_FIELDS = ("api_key", "project_id", "agent_id")


def read_environment(overrides: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the arguments of a constructor: ``overrides``, completed from the environment.

    Reads the variables of `MemoAirVoiceAgent.from_env`, unless ``agent`` is passed, which has the complete identity,
    and ``MEMOAIR_RUNTIME_BINARY``. The environment's user is left out if ``user`` is passed.

    Args:
        overrides: Arguments of the constructor, which take precedence.
        environ: The variables to read. None means ``os.environ``.

    Raises:
        ValueError: If a variable has an invalid value.
    """
    arguments = {} if overrides.get("agent") is not None else MemoAirVoiceAgent.read_env(environ)
    if binary := (os.environ if environ is None else environ).get("MEMOAIR_RUNTIME_BINARY"):
        arguments["runtime_binary"] = binary
    if overrides.get("user") is not None or overrides.get("user_id") is not None:
        arguments.pop("user_id", None)
    return {**arguments, **overrides}


def complete_identity(
    agent: object | None, *, cloud_base_url: str | None, org_only: bool, **identity: Any
) -> dict[str, Any]:
    """Return the arguments, each completed from the attributes of ``agent`` if it was not passed.

    Args:
        agent: An object with some of the attributes, such as ``MemoAirVoiceAgent``, or None.
        cloud_base_url: The URL of the cloud; the default counts as not passed.
        org_only: Whether to search only the organization's documents; true if either of both says so.
        **identity: The parts of the identity, such as ``api_key``; None counts as not passed.
    """
    if cloud_base_url == CLOUD_BASE_URL:
        cloud_base_url = getattr(agent, "cloud_base_url", cloud_base_url)
    completed = {name: getattr(agent, name, None) if value is None else value for name, value in identity.items()}
    org_only = org_only or bool(getattr(agent, "org_only", False))
    return {**completed, "cloud_base_url": cloud_base_url, "org_only": org_only}


def resolve_user(user: Mapping[str, Any] | None, user_id: str | None, *, required: bool) -> dict[str, Any]:
    """Return the user as ``{"id", "name", "metadata"}``. The client checks name and metadata.

    Raises:
        ValueError: If there is no id although one is ``required``, or if there are two different ones.
        TypeError: If an argument has the wrong type.
    """
    if user is not None and not isinstance(user, Mapping):
        raise TypeError(f'user must be a dict, {{"id": ...}}, not {type(user).__name__}')
    resolved = dict(user or {})
    if user_id is not None and resolved.setdefault("id", user_id) != user_id:
        raise ValueError('user_id and user["id"] name different users')
    if resolved.get("id") in (None, ""):
        if required:
            raise ValueError('user={"id": ...} or user_id is required')
        resolved["id"] = ORG_ONLY_USER  # documents belong to no user, so none is needed
    if not isinstance(resolved["id"], str):
        raise TypeError(f'user["id"] must be a str, not {type(resolved["id"]).__name__}')
    return resolved


def find_missing(arguments: Mapping[str, Any], names: Iterable[str] = IDENTITY_FIELDS) -> list[str]:
    """Return the names of arguments that are None, for a message that names all of them at once."""
    return [name for name in names if arguments.get(name) is None]
