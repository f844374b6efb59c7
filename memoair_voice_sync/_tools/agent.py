"""The identity of an agent, in one place: its key, its project, its own id and its user."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import memoair_voice_sync._arguments as check
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.http_headers import identity_headers
from memoair_voice_sync._diagnostics import warn_deprecated
from memoair_voice_sync._prompts.setting import VARIABLE as PROMPT_FRESH_VARIABLE
from memoair_voice_sync._prompts.setting import choose_fresh_s, parse_fresh_s
from memoair_voice_sync._recall.mode import VARIABLE as TRACE_MODE_VARIABLE
from memoair_voice_sync._recall.mode import parse_trace_mode
from memoair_voice_sync.client import MemoAirVoiceClientSync

if TYPE_CHECKING:
    from typing_extensions import Self

_REQUIRED_VARIABLES = {"api_key": "MEMOAIR_API_KEY", "project_id": "MEMOAIR_PROJECT_ID", "agent_id": "MEMOAIR_AGENT_ID"}
_VARIABLES = {**_REQUIRED_VARIABLES, "user_id": "MEMOAIR_USER_ID", "recall_traces": TRACE_MODE_VARIABLE}
_TRUE_VALUES, _FALSE_VALUES = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


_Kind = TypeVar("_Kind", bound=type[Any])


def _accept_former_names(kind: _Kind) -> _Kind:
    """Let the constructor of a dataclass take ``base_url=``, its name in 0.3. The signature does not show it."""
    init = kind.__init__

    @wraps(init)
    def init_with_former_names(self: Any, *values: Any, **named: Any) -> None:
        init(self, *values, **_rename_base_url(named))

    kind.__init__ = init_with_former_names
    return kind


def _rename_base_url(named: dict[str, Any]) -> dict[str, Any]:
    if "base_url" not in named:
        return named
    if "cloud_base_url" in named:
        raise TypeError("base_url and cloud_base_url are the same; pass cloud_base_url")
    warn_deprecated("base_url= of the agent is now cloud_base_url=")
    return {"cloud_base_url" if name == "base_url" else name: value for name, value in named.items()}


@_accept_former_names
@dataclass(frozen=True)
class MemoAirVoiceAgent:
    """The identity of a voice agent, in the form that every part of MemoAir uses.

    Immutable, and therefore safe to use from any thread; ``dataclasses.replace`` makes a changed copy. The ``repr``
    does not show the key.

    Attributes:
        api_key: The API key of the account.
        project_id: The project (the customer's workspace) that the agent belongs to.
        agent_id: The agent within the project.
        user_id: The only user that this process serves, or None if it serves many.
        cloud_base_url: The URL of the cloud, or None for no cloud.
        org_only: Whether to search only the organization's documents and save nothing.
        recall_traces: What is kept of each search: ``ids``, ``text`` or ``off``; None leaves it to the environment and
            the project.
        prompt_fresh_s: How long a prompt is used without asking the cloud whether its label has moved, in seconds; None
            leaves it to the environment.

    Raises:
        ValueError: If a value is invalid, such as an empty id.
        TypeError: If a value has the wrong type.

    Example:
        ```python
        agent = MemoAirVoiceAgent.from_env(project_id="proj_acme")
        client = agent.client(max_concurrent_users=64)
        ```
    """

    api_key: str = field(repr=False)
    project_id: str
    agent_id: str
    user_id: str | None = None
    cloud_base_url: str | None = CLOUD_BASE_URL
    org_only: bool = False
    recall_traces: str | None = None
    prompt_fresh_s: float | None = None

    def __post_init__(self) -> None:
        check.required_secret("api_key", self.api_key)
        check.identifier("project_id", self.project_id)
        check.identifier("agent_id", self.agent_id)
        if self.user_id is not None:
            check.identifier("user_id", self.user_id)
        check.base_url("cloud_base_url", self.cloud_base_url)
        check.flag("org_only", self.org_only)
        parse_trace_mode("recall_traces", self.recall_traces)
        if self.prompt_fresh_s is not None:
            choose_fresh_s(self.prompt_fresh_s)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "Self":
        """Make an agent from environment variables.

        ``MEMOAIR_API_KEY``, ``MEMOAIR_PROJECT_ID`` and ``MEMOAIR_AGENT_ID`` are required. ``MEMOAIR_USER_ID``,
        ``MEMOAIR_BASE_URL`` (empty: no cloud), ``MEMOAIR_ORG_ONLY`` (``1`` or ``0``), ``MEMOAIR_RECALL_TRACES``
        (``ids``, ``text`` or ``off``) and ``MEMOAIR_PROMPT_FRESH_S`` (seconds) are optional.

        Args:
            environ: The variables to read. None means ``os.environ``.
            **overrides: Attributes of the agent that take precedence over the environment.

        Returns:
            The agent.

        Raises:
            ValueError: If required variables are missing (the message names all of them) or a value is invalid.
        """
        values = cls.read_env(environ) | _rename_base_url(overrides)
        if missing := [variable for name, variable in _REQUIRED_VARIABLES.items() if name not in values]:
            raise ValueError(f"{', '.join(missing)} must be set")
        return cls(**values)

    @staticmethod
    def read_env(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the values of the variables of `from_env`, by the names of the attributes.

        Args:
            environ: The variables to read. None means ``os.environ``.

        Returns:
            The attributes whose variable is set.

        Raises:
            ValueError: If ``MEMOAIR_ORG_ONLY`` is neither ``1`` nor ``0``, or ``MEMOAIR_PROMPT_FRESH_S`` is no positive
                number.
        """
        variables = os.environ if environ is None else environ
        values: dict[str, Any] = {
            name: variables[variable] for name, variable in _VARIABLES.items() if variables.get(variable)
        }
        if (base_url := variables.get("MEMOAIR_BASE_URL")) is not None:
            values["cloud_base_url"] = base_url or None
        if fresh_s := variables.get(PROMPT_FRESH_VARIABLE):
            values["prompt_fresh_s"] = parse_fresh_s(fresh_s)
        return values | {"org_only": _parse_flag("MEMOAIR_ORG_ONLY", variables.get("MEMOAIR_ORG_ONLY", ""))}

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that identify the agent to the cloud.

        Returns:
            ``Authorization``, ``X-Project-Id`` and ``X-Agent-Id``, and ``X-User-Id`` if the agent has a user. A
                non-ASCII id is given as its UTF-8 bytes, which ``requests``, ``urllib3`` and ``http.client`` send
                unchanged.

        Raises:
            ValueError: If an id cannot be sent in a header.
        """
        identity = identity_headers(self.project_id, self.agent_id, self.user_id)
        return {"Authorization": f"Bearer {self.api_key}", **identity}

    def client(self, **options: Any) -> MemoAirVoiceClientSync:
        """Make a client for this agent.

        If the agent has a ``user_id``, the client serves that user, and its calls need not name one.

        Args:
            **options: Further arguments of the client, such as ``storage_root``. They take precedence over the
                agent's own.

        Returns:
            A new client, which the application closes.
        """
        return MemoAirVoiceClientSync(**self._client_arguments(options))

    def _client_arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        user_argument = {} if self.user_id is None else {"user": {"id": self.user_id}}
        return {
            "api_key": self.api_key,
            "project_id": self.project_id,
            "agent_id": self.agent_id,
            "cloud_base_url": self.cloud_base_url,
            "org_only": self.org_only,
            **({} if self.recall_traces is None else {"recall_traces": self.recall_traces}),
            **({} if self.prompt_fresh_s is None else {"prompt_fresh_s": self.prompt_fresh_s}),
            **user_argument,
            **options,
        }


def _parse_flag(variable: str, value: str) -> bool:
    if value.strip().lower() not in _TRUE_VALUES | _FALSE_VALUES:
        raise ValueError(f"{variable} must be 1 or 0")
    return value.strip().lower() in _TRUE_VALUES
