"""Who the caller is: the small part of memory that is always there."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import attrs
import msgspec

from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.timeutil import utc_now

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


@attrs.frozen
class UserProfile:
    """The caller, as the agents that talked to him said who he is. ``version`` grows by one with every change."""

    version: int = 0
    name: str = ""
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    told_at: datetime = _NEVER

    def told(self, user: Mapping[str, Any], at: datetime) -> "UserProfile":
        """The profile after a session was started for ``user={id, name, metadata}``.

        What is left out stays as it was, and so does everything where the profile was told something later.
        """
        if at < self.told_at <= utc_now():  # what was told by a clock that ran ahead must not stand until then
            return self
        name = user.get("name") or self.name
        metadata = user.get("metadata") or self.metadata
        changed = name != self.name or metadata != self.metadata
        return UserProfile(self.version + changed, name, metadata, at)


class CloudProfile(msgspec.Struct, frozen=True, rename="camel"):
    """The caller, as the cloud found him in all that was said. ``summary`` has a line for each kind of thing."""

    version: int = 0
    summary: str = ""
    attributes: dict[str, Any] = {}
    name: str | None = None
    metadata: dict[str, Any] = {}


_NOT_FOUND = CloudProfile()


@attrs.frozen
class MergedProfile:
    """All that is known of who the caller is: as told here, and as the cloud found.

    Name and metadata are those that an agent told last, on whichever machine: other machines' starts of sessions come
    here as events. Where none did, the cloud's. ``facts`` are sentences.
    """

    told: UserProfile
    found: CloudProfile = _NOT_FOUND
    facts: Sequence[str] = ()

    @property
    def version(self) -> int:
        """Grows with every change of either."""
        return self.told.version + self.found.version

    @property
    def name(self) -> str:
        """How the caller is called; empty where nobody has said."""
        return self.told.name or self.found.name or ""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What agents told of him besides."""
        return self.told.metadata or self.found.metadata

    def statements(self) -> list[str]:
        """What is known, a line each."""
        name = [f"Name: {self.name}"] if self.name else []
        told = name + [f"{key}: {_plain(value)}" for key, value in self.metadata.items()]
        return told + [line for line in map(str.strip, self.found.summary.splitlines()) if line]

    def to_wire(self) -> dict[str, Any] | None:
        """The ``profile`` of a search reply; None where nothing is known."""
        statements = self.statements()
        if not statements and not self.facts:
            return None
        return {
            "version": self.version,
            "summary": "; ".join(statements),
            "name": self.name,
            "metadata": dict(self.metadata),
            "attributes": self.found.attributes,
            "facts": list(self.facts),
        }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class _ProfileRecord(msgspec.Struct, frozen=True, rename="camel"):
    version: int
    name: str
    metadata: dict[str, Any]
    told_at: datetime


_snapshots = msgspec.json.Decoder(_ProfileRecord)


def read_snapshot(folder: UserFolder) -> UserProfile:
    """The profile as it was last written; an empty one where there is none. The logs know better, a moment later."""
    try:
        return from_snapshot(folder.profile.read_bytes())
    except (OSError, ValueError):
        return UserProfile()


def from_snapshot(content: bytes) -> UserProfile:
    """The profile that a snapshot holds; raises ValueError where it is none."""
    stored = _snapshots.decode(content)
    if stored.told_at.tzinfo is None:
        raise ValueError("the moment has no time zone")
    return UserProfile(stored.version, stored.name, stored.metadata, stored.told_at)


def snapshot(profile: UserProfile) -> bytes:
    """The content of the snapshot's file."""
    return msgspec.json.encode(_ProfileRecord(profile.version, profile.name, dict(profile.metadata), profile.told_at))
