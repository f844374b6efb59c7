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
    stated_at: datetime = _NEVER

    def updated(self, user: Mapping[str, Any], at: datetime) -> "UserProfile":
        """The profile after a session was started for ``user={id, name, metadata}``.

        What is left out stays as it was, and so does everything where the profile was told something later.
        """
        if at < self.stated_at <= utc_now():  # what was told by a clock that ran ahead must not stand until then
            return self
        name = user.get("name") or self.name
        metadata = user.get("metadata") or self.metadata
        has_changed = name != self.name or metadata != self.metadata
        return UserProfile(self.version + has_changed, name, metadata, at)


class CloudProfile(msgspec.Struct, frozen=True, rename="camel"):
    """The caller, as the cloud found him in all that was said. ``summary`` has a line for each kind of thing."""

    version: int = 0
    summary: str = ""
    attributes: dict[str, Any] = {}
    name: str | None = None
    metadata: dict[str, Any] = {}


_EMPTY_CLOUD_PROFILE = CloudProfile()


@attrs.frozen
class MergedProfile:
    """All that is known of who the caller is: as told here, and as the cloud found.

    Name and metadata are those that an agent told last, on whichever machine: other machines' starts of sessions come
    here as events. Where none did, the cloud's. ``facts`` are sentences.
    """

    stated: UserProfile
    derived: CloudProfile = _EMPTY_CLOUD_PROFILE
    facts: Sequence[str] = ()

    @property
    def version(self) -> int:
        """Grows with every change of either."""
        return self.stated.version + self.derived.version

    @property
    def name(self) -> str:
        """How the caller is called; empty where nobody has said."""
        return self.stated.name or self.derived.name or ""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What agents told of him besides."""
        return self.stated.metadata or self.derived.metadata

    def statements(self) -> list[str]:
        """What is known, a line each."""
        name = [f"Name: {self.name}"] if self.name else []
        stated = name + [f"{key}: {_to_text(value)}" for key, value in self.metadata.items()]
        return stated + [line for line in map(str.strip, self.derived.summary.splitlines()) if line]

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
            "attributes": self.derived.attributes,
            "facts": list(self.facts),
        }


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class _ProfileRecord(msgspec.Struct, frozen=True, rename="camel"):
    version: int
    name: str
    metadata: dict[str, Any]
    stated_at: datetime = msgspec.field(name="toldAt")


_snapshot_decoder = msgspec.json.Decoder(_ProfileRecord)


def read_snapshot(folder: UserFolder) -> UserProfile:
    """The profile as it was last written; an empty one where there is none. The logs know better, a moment later."""
    try:
        return decode_snapshot(folder.profile.read_bytes())
    except (OSError, ValueError):
        return UserProfile()


def decode_snapshot(content: bytes) -> UserProfile:
    """The profile that a snapshot holds; raises ValueError where it is none."""
    stored = _snapshot_decoder.decode(content)
    if stored.stated_at.tzinfo is None:
        raise ValueError("the moment has no time zone")
    return UserProfile(stored.version, stored.name, stored.metadata, stored.stated_at)


def encode_snapshot(profile: UserProfile) -> bytes:
    """The content of the snapshot's file."""
    return msgspec.json.encode(_ProfileRecord(profile.version, profile.name, dict(profile.metadata), profile.stated_at))
