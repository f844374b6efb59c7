"""What the client asks of the cloud itself: the organisation's documents, and what is known of a caller."""

from collections.abc import Mapping
from typing import Any

import memoair_voice_sync._arguments as check
from memoair_voice_sync._cloud import CloudApi
from memoair_voice_sync._pool import RuntimePool
from memoair_voice_sync._refresh import refresh_documents, refresh_user
from memoair_voice_sync._results import IndexBuildResult
from memoair_voice_sync._user import User
from memoair_voice_sync._user_runtime_client import UserRuntimeClient


class CloudCalls:
    """The client's methods that go to the cloud, and have its runtimes see at once what they change.

    Without a cloud they raise `MemoAirVoiceMemoryError`, ``cloud.unreachable``. Any thread may call them.
    """

    def __init__(
        self,
        cloud: CloudApi,
        pool: RuntimePool,
        runtime_client: UserRuntimeClient,
        *,
        runtimes_see_documents: bool,
        only_user: User | None,
    ) -> None:
        self._cloud = cloud
        self._pool = pool
        self._runtime_client = runtime_client
        self._runtimes_see_documents = runtimes_see_documents
        self._only_user = only_user

    def create_index(
        self, name: str, documents: list[dict[str, Any]], *, metadata: dict[str, Any] | None = None
    ) -> IndexBuildResult:
        """Build an index of the organisation's documents in the cloud, or append to it.

        ``documents`` are ``{"id", "text", "metadata"}``, at most 100 and 1 MB a call; one whose id is known replaces
        the old one. ``metadata`` is attached to each. The runtimes of this client find them when this returns, those of
        others within half a minute. Raises `MemoAirVoiceMemoryError`: ``cloud.batch_too_large`` (413) without a round
        trip, else what the cloud says, after some tries where trying again may help.
        """
        built = self._cloud.create_index(name, documents, metadata)
        self._refresh_documents()
        return built

    def list_indexes(self) -> list[dict[str, Any]]:
        """All indexes of the project, as the cloud tells of them: ``name``, ``version``, ``chunkCount``, ..."""
        return self._cloud.list_indexes()

    def get_index(self, name: str) -> dict[str, Any]:
        """One index, as the cloud tells of it."""
        return self._cloud.get_index(name)

    def delete_index(self, name: str) -> dict[str, Any]:
        """Delete an index with all its documents."""
        deleted = self._cloud.delete_index(name)
        self._refresh_documents()
        return deleted

    def delete_document(self, name: str, document_id: str) -> dict[str, Any]:
        """Delete one document of an index."""
        deleted = self._cloud.delete_document(name, document_id)
        self._refresh_documents()
        return deleted

    def list_memories(
        self, *, user: Mapping[str, Any] | None = None, user_id: str | None = None, history: bool = False
    ) -> list[dict[str, Any]]:
        """What the cloud knows of a caller: ``memoryId``, ``kind``, ``text``, ``saidAt``, ... of each memory.

        With ``history`` also what held once and holds no longer.
        """
        return self._cloud.list_memories(self._resolve_user(user, user_id).id, history=check.flag("history", history))

    def update_memory(
        self,
        memory_id: str,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        text: str | None = None,
        value: str | None = None,
        holds_from: str | None = None,
        holds_until: str | None = None,
    ) -> dict[str, Any]:
        """Correct something that the cloud knows of a caller, and return it; days are ``YYYY-MM-DD``."""
        caller = self._resolve_user(user, user_id)
        check.identifier("memory_id", memory_id)
        fields = {
            "text": check.optional_text("text", text),
            "value": check.optional_text("value", value),
            "holdsFrom": check.optional_text("holds_from", holds_from),
            "holdsUntil": check.optional_text("holds_until", holds_until),
        }
        changes = {name: value for name, value in fields.items() if value is not None}
        if not changes:
            raise ValueError("text, value, holds_from or holds_until says what to change; none is given")
        memory = self._cloud.update_memory(caller.id, memory_id, changes)
        refresh_user(self._pool, self._runtime_client, caller.id)
        return memory

    def delete_memory(
        self, memory_id: str, *, user: Mapping[str, Any] | None = None, user_id: str | None = None
    ) -> dict[str, Any]:
        """Delete something that the cloud knows of a caller; it is not learned again from what he said."""
        caller = self._resolve_user(user, user_id)
        deleted = self._cloud.delete_memory(caller.id, memory_id)
        refresh_user(self._pool, self._runtime_client, caller.id)
        return deleted

    def memory_history(
        self, memory_id: str, *, user: Mapping[str, Any] | None = None, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """What became of something that the cloud knows: ``at``, ``action``, ``by``, ``text``, ``value`` for each step.

        The oldest comes first.
        """
        return self._cloud.memory_history(self._resolve_user(user, user_id).id, memory_id)

    def _resolve_user(self, user: Mapping[str, Any] | None, user_id: str | None) -> User:
        """Who is meant; where the client serves one caller only, nobody else can be."""
        if self._only_user is None:
            return User.parse(user, user_id)
        if user is None and user_id is None:
            return self._only_user
        caller = User.parse(user, user_id)
        if caller.id != self._only_user.id:
            raise ValueError("this client serves one caller only, and the call names another")
        return caller if len(caller.fields) > 1 else self._only_user

    def _refresh_documents(self) -> None:
        if self._runtimes_see_documents:
            refresh_documents(self._pool, self._runtime_client)
