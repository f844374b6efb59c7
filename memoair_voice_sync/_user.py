"""The end user of one call, as the application names him."""

from collections.abc import Mapping
from typing import Any

import attrs

import memoair_voice_sync._arguments as check


@attrs.frozen
class User:
    """Who calls: ``id`` routes the call; the rest is noted with the session."""

    id: str
    fields: Mapping[str, Any]  # as session/start takes them: id, name, metadata

    @classmethod
    def parse(cls, user: Mapping[str, Any] | None, user_id: str | None) -> "User":
        """Read ``user={"id", "name", "metadata"}`` and its alias ``user_id``.

        Raises ValueError where neither names a caller or both name another one, TypeError for what is no dict.
        """
        if user is None:
            if user_id is None:
                raise ValueError('user={"id": ...} says who calls; it is missing')
            user = {"id": check.identifier("user_id", user_id)}
        fields = check.mapping("user", user)
        if "id" not in fields and user_id is not None:
            fields["id"] = check.identifier("user_id", user_id)
        if "id" not in fields:
            raise ValueError('user needs an "id"')
        identifier = check.identifier('user["id"]', fields["id"])
        if user_id is not None and check.identifier("user_id", user_id) != identifier:
            raise ValueError('user_id and user["id"] name two callers')
        checked: dict[str, Any] = {"id": identifier}
        if fields.get("name") is not None:
            checked["name"] = check.text('user["name"]', fields["name"])
        if fields.get("metadata") is not None:
            checked["metadata"] = check.json_mapping('user["metadata"]', fields["metadata"])
        return cls(identifier, checked)
