"""The identity of an agent, with an async client."""

from typing import Any

import memoair_voice_sync
from memoair_voice._client import MemoAirVoiceClient


class MemoAirVoiceAgent(memoair_voice_sync.MemoAirVoiceAgent):
    """The identity of a voice agent, in the form that every part of MemoAir uses; its `client` is async.

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

    def client(self, **options: Any) -> MemoAirVoiceClient:  # type: ignore[override]  # the async client
        """Make an async client for this agent.

        If the agent has a ``user_id``, the client serves that user, and its calls need not name one.

        Args:
            **options: Further arguments of the client, such as ``storage_root``. They take precedence over the
                agent's own.

        Returns:
            A new client, which the application closes.
        """
        return MemoAirVoiceClient(**self._client_arguments(options))
