"""The client's calls to the cloud: the organization's documents and users' memories."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import memoair_voice_sync._arguments as check
from memoair_protocol.defaults import ORG_ONLY_USER
from memoair_protocol.timestamps import format_utc, utc_now
from memoair_voice_sync._after_fork import check_process
from memoair_voice_sync._cloud.api import CloudApi
from memoair_voice_sync._loopback.user_runtime_client import UserRuntimeClient
from memoair_voice_sync._pool.pool import RuntimePool
from memoair_voice_sync._pool.refresh import refresh_documents, refresh_user
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import IndexBuildResult


class CloudCalls:
    """The client's methods that call the cloud. The client's runtimes then fetch immediately what has changed.

    Without a cloud they raise `MemoAirVoiceMemoryError` with ``cloud.unreachable``. Any thread may call them.
    """

    def __init__(
        self,
        cloud: CloudApi,
        pool: RuntimePool,
        runtime_client: UserRuntimeClient,
        *,
        runtimes_see_documents: bool,
        only_user: User | None,
        org_only: bool,
    ) -> None:
        self._cloud = cloud
        self._pool = pool
        self._runtime_client = runtime_client
        self._runtimes_see_documents = runtimes_see_documents
        self._only_user = only_user
        self._org_only = org_only

    def create_index(
        self, name: str, documents: list[dict[str, Any]], *, metadata: dict[str, Any] | None = None
    ) -> IndexBuildResult:
        """Build an index of the organization's documents in the cloud, or append to it.

        The runtimes of this client find the documents when this returns, those of other clients within half a minute.

        Args:
            name: The name of the index.
            documents: The documents, each ``{"id", "text", "metadata"}``, at most 100 and 1 MB per call. A document
                replaces an earlier one with the same id.
            metadata: Metadata that is added to every document.

        Returns:
            The name and version of the index, and the number of chunks.

        Raises:
            MemoAirVoiceMemoryError: ``cloud.batch_too_large`` (without a round trip), or the error of the cloud, after
                some retries where they may help.
        """
        built = self._cloud.create_index(name, documents, metadata)
        self._refresh_documents()
        return built

    def list_indexes(self) -> list[dict[str, Any]]:
        """Return all indexes of the project.

        Returns:
            A dict for each index: ``name``, ``version``, ``chunkCount``, ...

        Raises:
            MemoAirVoiceMemoryError: If the cloud fails.
        """
        return self._cloud.list_indexes()

    def get_index(self, name: str) -> dict[str, Any]:
        """Return one index.

        Args:
            name: The name of the index.

        Returns:
            The index: ``name``, ``version``, ``chunkCount``, ...

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if there is no such index.
        """
        return self._cloud.get_index(name)

    def delete_index(self, name: str) -> dict[str, Any]:
        """Delete an index with all its documents.

        Args:
            name: The name of the index.

        Returns:
            The reply of the cloud.

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if there is no such index.
        """
        deleted = self._cloud.delete_index(name)
        self._refresh_documents()
        return deleted

    def delete_document(self, name: str, document_id: str) -> dict[str, Any]:
        """Delete one document of an index.

        Args:
            name: The name of the index.
            document_id: The id of the document.

        Returns:
            The reply of the cloud.

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if there is no such document.
        """
        deleted = self._cloud.delete_document(name, document_id)
        self._refresh_documents()
        return deleted

    def list_memories(
        self, *, user: Mapping[str, Any] | None = None, user_id: str | None = None, history: bool = False
    ) -> list[dict[str, Any]]:
        """Return what the cloud knows of a user.

        Args:
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            history: Whether to include memories that are no longer valid.

        Returns:
            A dict for each memory: ``memoryId``, ``kind``, ``text``, ``saidAt``, ...

        Raises:
            MemoAirVoiceMemoryError: If the cloud fails.
        """
        return self._cloud.list_memories(self._require_user(user, user_id).id, history=check.flag("history", history))

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
        """Correct a memory of a user in the cloud.

        Args:
            memory_id: The id of the memory.
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            text: The new sentence.
            value: The new value.
            holds_from: The first day on which the memory is valid, ``YYYY-MM-DD``.
            holds_until: The day until which it is valid, ``YYYY-MM-DD``.

        Returns:
            The memory after the change.

        Raises:
            ValueError: If no change is given.
            MemoAirVoiceMemoryError: ``cloud.not_found`` if there is no such memory.
        """
        caller = self._require_user(user, user_id)
        check.identifier("memory_id", memory_id)
        fields = {
            "text": check.optional_text("text", text),
            "value": check.optional_text("value", value),
            "holdsFrom": check.optional_text("holds_from", holds_from),
            "holdsUntil": check.optional_text("holds_until", holds_until),
        }
        changes = {name: value for name, value in fields.items() if value is not None}
        if not changes:
            raise ValueError("no change is given: pass text, value, holds_from or holds_until")
        memory = self._cloud.update_memory(caller.id, memory_id, changes)
        refresh_user(self._pool, self._runtime_client, caller.id)
        return memory

    def delete_memory(
        self, memory_id: str, *, user: Mapping[str, Any] | None = None, user_id: str | None = None
    ) -> dict[str, Any]:
        """Delete a memory of a user in the cloud. It is not learned again from the same turns.

        Args:
            memory_id: The id of the memory.
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.

        Returns:
            The reply of the cloud.

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if there is no such memory.
        """
        caller = self._require_user(user, user_id)
        deleted = self._cloud.delete_memory(caller.id, memory_id)
        refresh_user(self._pool, self._runtime_client, caller.id)
        return deleted

    def memory_history(
        self, memory_id: str, *, user: Mapping[str, Any] | None = None, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the changes of a memory in the cloud.

        Args:
            memory_id: The id of the memory.
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.

        Returns:
            A dict for each change, oldest first: ``at``, ``action``, ``by``, ``text``, ``value``.

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if there is no such memory.
        """
        return self._cloud.memory_history(self._require_user(user, user_id).id, memory_id)

    def export_user(
        self,
        path: str | PathLike[str],
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        overwrite: bool = False,
    ) -> int:
        """Write everything that the cloud keeps of a user to a file, as one JSON document.

        The file is complete or not there, and only this operating system user can read it. The memory that this takes
        does not depend on the number of turns.

        Args:
            path: The file.
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            overwrite: Whether to replace an existing file.

        Returns:
            The size of the document in bytes.

        Raises:
            FileExistsError: If there is a file, and it is not to be replaced.
            OSError: If the file cannot be written.
            MemoAirVoiceMemoryError: ``cloud.not_found`` if the cloud does not know the user.
        """
        file, caller = check.path("path", path), self._require_user(user, user_id)
        if file is None:
            raise ValueError("path must be the path of a file")
        return self._cloud.export_user(caller.id, Path(file), overwrite=check.flag("overwrite", overwrite))

    def hold_user(
        self,
        reason: str,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        by: str | None = None,
    ) -> dict[str, Any]:
        """Place a legal hold on a user: until it is lifted, nothing of theirs is dropped or erased.

        Args:
            reason: Why, for the record.
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            by: Who says so, for the record, in addition to the id of the API key.

        Returns:
            The hold: ``holdId``, ``reason``, ``placedAt``, ``placedBy``, ...

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if the cloud does not know the user, ``cloud.conflict`` if
                there is a hold already.
        """
        caller = self._require_user(user, user_id)
        return self._cloud.place_hold(caller.id, check.text("reason", reason), check.optional_text("by", by))

    def lift_hold(
        self,
        reason: str,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        by: str | None = None,
    ) -> dict[str, Any]:
        """Lift the legal hold on a user. It stays on record.

        Args:
            reason: Why, for the record.
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            by: Who says so, for the record, in addition to the id of the API key.

        Returns:
            The hold, with ``liftedAt``, ``liftedBy`` and ``liftReason``.

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if there is no such hold.
        """
        caller = self._require_user(user, user_id)
        return self._cloud.lift_hold(caller.id, check.text("reason", reason), check.optional_text("by", by))

    def list_holds(self, *, user: Mapping[str, Any] | None = None, user_id: str | None = None) -> list[dict[str, Any]]:
        """Return the legal holds on a user, lifted ones included.

        Args:
            user: The user, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.

        Returns:
            A dict for each hold, earliest first: ``holdId``, ``reason``, ``placedAt``, ``placedBy``, ``liftedAt``, ...

        Raises:
            MemoAirVoiceMemoryError: ``cloud.not_found`` if the cloud does not know the user.
        """
        return self._cloud.list_holds(self._require_user(user, user_id).id)

    def report_outcome(
        self, session_id: str, outcome: str, *, user_id: str | None = None, score: float | None = None
    ) -> None:
        """Report how a call went, such as ``resolved``, so that versions of a prompt can be compared by it.

        The same outcome of the same call, reported again, replaces the earlier one, so repeating this is safe. It may
        be reported before the call itself has reached the cloud.

        Args:
            session_id: The id of the call.
            outcome: The name of the outcome: up to 64 of ``a-z``, ``0-9``, ``.``, ``_`` and ``-``.
            user_id: The id of the caller. Needed only if several callers have a call with this id.
            score: How well it went, a finite number, at most 1e12. What it means is up to the application.

        Raises:
            MemoAirVoiceMemoryError: The cloud does not have the outcome: it rejects it (``cloud.invalid``), cannot be
                reached, or fails, after some retries where they may help.
        """
        user_id = check.optional_identifier("user_id", user_id)
        if user_id is None and self._only_user is not None:
            user_id = self._only_user.id
        entry = {
            "sessionId": check.identifier("session_id", session_id),
            "userId": user_id,
            "outcome": check.outcome_name("outcome", outcome),
            "score": check.outcome_score("score", score),
            "occurredAt": format_utc(utc_now()),
        }
        check_process()
        reply = self._cloud.report_outcome({name: value for name, value in entry.items() if value is not None})
        if rejected := reply.get("rejected"):
            reason = rejected[0].get("reason") if isinstance(rejected, list) and isinstance(rejected[0], dict) else None
            message = f"the cloud rejects the outcome: {reason or 'it gives no reason'}"
            raise MemoAirVoiceMemoryError("cloud.invalid", message, 200)

    def _resolve_user(self, user: Mapping[str, Any] | None, user_id: str | None) -> User:
        """Return the user of a call. One that searches only the organization's documents needs none."""
        if self._org_only and self._only_user is None and user is None and user_id is None:
            check_process()
            return User(ORG_ONLY_USER, {"id": ORG_ONLY_USER})
        return self._require_user(user, user_id)

    def _require_user(
        self,
        user: Mapping[str, Any] | None,
        user_id: str | None,
        check_id: Callable[[str, object], str] = check.identifier,
    ) -> User:
        """Return the user whose data is meant; a client with a user of its own accepts no other."""
        check_process()
        if self._only_user is None:
            return User.parse(user, user_id, check_id)
        if user is None and user_id is None:
            return self._only_user
        caller = User.parse(user, user_id, check_id)
        if caller.id != self._only_user.id:
            raise ValueError("this client serves one user only, and the call names another")
        return caller if len(caller.fields) > 1 else self._only_user

    def _refresh_documents(self) -> None:
        if self._runtimes_see_documents:
            refresh_documents(self._pool, self._runtime_client)
