"""Who an agent is: its key, its project, itself, and whom it talks to, from one place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import memoair_voice_sync._arguments as check
from memoair_voice_sync._client import MemoAirVoiceClientSync
from memoair_voice_sync._cloud import identity_headers
from memoair_voice_sync._memory import DEFAULT_CLOUD_BASE_URL

if TYPE_CHECKING:
    from typing_extensions import Self

_REQUIRED_VARIABLES = {"api_key": "MEMOAIR_API_KEY", "project_id": "MEMOAIR_PROJECT_ID", "agent_id": "MEMOAIR_AGENT_ID"}
_VARIABLES = {**_REQUIRED_VARIABLES, "user_id": "MEMOAIR_USER_ID"}
_TRUE_VALUES, _FALSE_VALUES = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class MemoAirVoiceAgent:
    """Who a voice agent is, as every part of MemoAir wants to know it.

    ``api_key`` is the account's, ``project_id`` the customer's workspace, ``agent_id`` the bot in it, ``user_id`` the
    one caller whom this process serves, None where it serves many. ``cloud_base_url`` None is no cloud; ``org_only``
    searches the organisation's documents alone and keeps nothing. Unchangeable, and so safe to use from any thread
    (``dataclasses.replace`` makes another one); the key is not in its ``repr``. Raises ValueError and TypeError for
    what can't be.
    """

    api_key: str = field(repr=False)
    project_id: str
    agent_id: str
    user_id: str | None = None
    cloud_base_url: str | None = DEFAULT_CLOUD_BASE_URL
    org_only: bool = False

    def __post_init__(self) -> None:
        check.secret("api_key", check.identifier("api_key", self.api_key))
        check.identifier("project_id", self.project_id)
        check.identifier("agent_id", self.agent_id)
        if self.user_id is not None:
            check.identifier("user_id", self.user_id)
        check.base_url("cloud_base_url", self.cloud_base_url)
        check.flag("org_only", self.org_only)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "Self":
        """Read it from the environment (``os.environ``, or ``environ``); what is ``given`` comes first.

        ``MEMOAIR_API_KEY``, ``MEMOAIR_PROJECT_ID`` and ``MEMOAIR_AGENT_ID`` are needed, ``MEMOAIR_USER_ID``,
        ``MEMOAIR_BASE_URL`` (empty: no cloud) and ``MEMOAIR_ORG_ONLY`` (``1`` or ``0``) are not. Raises ValueError that
        names all that is missing.
        """
        values = cls.read_env(environ) | overrides
        if missing := [variable for name, variable in _REQUIRED_VARIABLES.items() if name not in values]:
            raise ValueError(f"{', '.join(missing)} must be set")
        return cls(**values)

    @staticmethod
    def read_env(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What the variables of `from_env` say, by the names of the constructor's arguments; what is unset is left out.

        Raises ValueError for a ``MEMOAIR_ORG_ONLY`` that is neither ``1`` nor ``0``.
        """
        variables = os.environ if environ is None else environ
        values: dict[str, Any] = {
            name: variables[variable] for name, variable in _VARIABLES.items() if variables.get(variable)
        }
        if (base_url := variables.get("MEMOAIR_BASE_URL")) is not None:
            values["cloud_base_url"] = base_url or None
        return values | {"org_only": _parse_flag("MEMOAIR_ORG_ONLY", variables.get("MEMOAIR_ORG_ONLY", ""))}

    def headers(self) -> dict[str, str]:
        """What says so on requests to the cloud: ``Authorization``, ``X-Project-Id``, ``X-Agent-Id``, ``X-User-Id``.

        The last only where there is a caller. An id beyond ASCII stands there as the bytes of its UTF-8, which
        ``requests``, ``urllib3`` and ``http.client`` send as they are. Raises ValueError for an id that fits no header.
        """
        identity = identity_headers(self.project_id, self.agent_id, self.user_id)
        return {"Authorization": f"Bearer {self.api_key}", **identity}

    def client(self, **options: Any) -> MemoAirVoiceClientSync:
        """Make a client of this agent; ``options`` are the constructor's others, such as ``storage_root``.

        Where the agent has a ``user_id``, the client serves that caller, and no call needs to name him.
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
            **user_argument,
            **options,
        }


def _parse_flag(variable: str, value: str) -> bool:
    if value.strip().lower() not in _TRUE_VALUES | _FALSE_VALUES:
        raise ValueError(f"{variable} must be 1 or 0")
    return value.strip().lower() in _TRUE_VALUES
