"""The user of a call, as the application names them."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

import memoair_voice_sync._arguments as check


@attrs.frozen
class User:
    """A user. The ``id`` routes the call; the other fields are stored with the session."""

    id: str
    fields: Mapping[str, Any]  # as in session/start: id, name, metadata

    @classmethod
    def parse(
        cls,
        user: Mapping[str, Any] | None,
        user_id: str | None,
        check_id: Callable[[str, object], str] = check.identifier,
    ) -> "User":
        """Validate ``user={"id", "name", "metadata"}`` and its alternative ``user_id``.

        ``check_id`` checks the id. Raises ValueError if neither names a user or if they name different ones, TypeError
        if ``user`` is not a dict.
        """
        if user is None:
            if user_id is None:
                raise ValueError('user={"id": ...} is required')
            user = {"id": check_id("user_id", user_id)}
        fields = check.mapping("user", user)
        if "id" not in fields and user_id is not None:
            fields["id"] = check_id("user_id", user_id)
        if "id" not in fields:
            raise ValueError('user must have an "id"')
        identifier = check_id('user["id"]', fields["id"])
        if user_id is not None and check_id("user_id", user_id) != identifier:
            raise ValueError('user_id and user["id"] name different users')
        checked: dict[str, Any] = {"id": identifier}
        if fields.get("name") is not None:
            checked["name"] = check.text('user["name"]', fields["name"])
        if fields.get("metadata") is not None:
            checked["metadata"] = check.json_mapping('user["metadata"]', fields["metadata"])
        return cls(identifier, checked)
