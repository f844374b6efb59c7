"""The profile: who the user is. It is small and always in memory."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import attrs
import msgspec

from memoair_protocol.callers import has_several_callers
from memoair_protocol.names import clean_name, is_role_name
from memoair_protocol.timestamps import utc_now
from memoair_runtime.storage.state_file import Timestamp, Version, read_state
from memoair_runtime.storage.user_folder import UserFolder

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


@attrs.frozen
class UserProfile:
    """The user as applications described them when sessions were started.

    Attributes:
        version: Grows by one with every change.
        name: The user's name; empty if unknown.
        metadata: Other properties.
        stated_at: When the profile was last stated.
    """

    version: int = 0
    name: str = ""
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    stated_at: datetime = _NEVER

    def updated(self, user: Mapping[str, Any], at: datetime) -> "UserProfile":
        """Return the profile after a session start.

        A missing name or missing metadata leaves the previous value. If the profile is newer than ``at``, nothing
        changes.

        Args:
            user: ``{id, name, metadata}`` of the session start.
            at: When the session started.
        """
        if at < self.stated_at <= utc_now():  # a time in the future, from a wrong clock, must not block updates
            return self
        name = user.get("name") or self.name
        metadata = user.get("metadata") or self.metadata
        has_changed = name != self.name or metadata != self.metadata
        return UserProfile(self.version + has_changed, name, metadata, at)


class CloudProfile(msgspec.Struct, frozen=True, rename="camel"):
    """The user as the cloud derived them from turns.

    The field names in camel case are the keys on disk and on the wire.

    Attributes:
        version: The cloud's version of the profile.
        summary: One line for each kind of fact.
        attributes: The same as values.
        name: The user's name.
        metadata: Other properties.
    """

    version: Version = 0
    summary: str = ""
    attributes: dict[str, Any] = {}
    name: str | None = None
    metadata: dict[str, Any] = {}


_EMPTY_CLOUD_PROFILE = CloudProfile()


@attrs.frozen
class MergedProfile:
    """Everything that is known about the user.

    Name and metadata are those that an application stated last, on whichever machine: session starts on other machines
    arrive here as events. If none did, they are those that the cloud derived.

    Attributes:
        stated: The profile as stated by applications.
        derived: The profile as derived by the cloud.
        facts: Sentences.
    """

    stated: UserProfile
    derived: CloudProfile = _EMPTY_CLOUD_PROFILE
    facts: Sequence[str] = ()

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self.stated.version + self.derived.version

    @property
    def name(self) -> str:
        """The user's name; empty if unknown."""
        return self.stated.name or self.derived.name or ""

    @property
    def shown_name(self) -> str:
        """The name by which the caller may be greeted; empty if several people use the number, or if it is no name."""
        if has_several_callers(self.derived.attributes) or is_role_name(self.name):
            return ""
        return clean_name(self.name)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Other properties of the user."""
        return self.stated.metadata or self.derived.metadata

    def statements(self) -> list[str]:
        """Return what is known, one line per statement."""
        name = [f"Name: {self.shown_name}"] if self.shown_name else []
        stated = name + [f"{key}: {_to_text(value)}" for key, value in self.metadata.items()]
        return stated + [line for line in map(str.strip, self.derived.summary.splitlines()) if line]

    def to_wire(self) -> dict[str, Any] | None:
        """Return the ``profile`` of a search reply; None if nothing is known."""
        statements = self.statements()
        if not statements and not self.facts:
            return None
        return {
            "version": self.version,
            "summary": "; ".join(statements),
            "name": self.shown_name,
            "metadata": dict(self.metadata),
            "attributes": self.derived.attributes,
            "facts": list(self.facts),
        }


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class _ProfileRecord(msgspec.Struct, frozen=True, rename="camel"):
    version: Version
    name: str
    metadata: dict[str, Any]
    stated_at: Timestamp = msgspec.field(name="toldAt")


_snapshot_decoder = msgspec.json.Decoder(_ProfileRecord)


def read_snapshot(folder: UserFolder) -> UserProfile:
    """Read the profile as it was last written, or an empty one. The logs, which are read later, may be newer."""
    return read_state(folder.profile, decode_snapshot) or UserProfile()


def decode_snapshot(content: bytes) -> UserProfile:
    """Decode a stored profile.

    Raises:
        ValueError: The content is not a valid profile.
    """
    stored = _snapshot_decoder.decode(content)
    return UserProfile(stored.version, stored.name, stored.metadata, stored.stated_at)


def encode_snapshot(profile: UserProfile) -> bytes:
    """Encode a profile for its file."""
    return msgspec.json.encode(_ProfileRecord(profile.version, profile.name, dict(profile.metadata), profile.stated_at))
