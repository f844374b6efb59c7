"""What the cloud answers, checked once: read strictly, its hash compared, made typed records."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from memoair_runtime.memory.profile import CloudProfile
from memoair_runtime.recall.org_manifest import ManifestDocument, OrgKey
from memoair_runtime.storage.events import Event, EventType
from memoair_runtime.storage.replica_file import ReplicaFact, ReplicaPage
from memoair_runtime.sync.errors import unreadable

Version = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Mode = Literal["snapshot", "delta"]
_KEPT_TYPES = (EventType.SESSION_START.value, EventType.TURN.value)
A = TypeVar("A", bound=msgspec.Struct)


class OrgFileInfo(msgspec.Struct, frozen=True):
    """The index file that the cloud built last."""

    version: Version
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Version


class Bootstrap(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The versions of all there is; None where a caller is meant and none was named."""

    profile_version: Version | None = None
    permanent_manifest_version: Version | None = None
    org_manifest_version: Version
    forgotten_version: Version
    forgotten_at: Moment | None = None
    org_file: OrgFileInfo | None = None
    sync_token: str


class ProfileResponse(msgspec.Struct, frozen=True, rename="camel"):
    """Who the caller is."""

    version: Version
    content_hash: str
    summary: str
    attributes: dict[str, Any]
    name: str | None
    metadata: dict[str, Any]

    def profile(self) -> CloudProfile:
        """The same as it is kept."""
        return CloudProfile(self.version, self.summary, self.attributes, self.name, self.metadata)


class PermanentResponse(msgspec.Struct, frozen=True, rename="camel"):
    """What was said and what is known of it; with ``more``, there is more of it to ask for."""

    mode: Mode
    version: Version
    more: bool
    content_hash: str
    events: list[Event]
    facts: list[ReplicaFact]
    removed: list[str]

    def page(self) -> ReplicaPage:
        """The same as it is kept."""
        return ReplicaPage(self.version, self.events, self.facts, self.removed)


class OrgResponse(msgspec.Struct, frozen=True, rename="camel"):
    """The organisation's documents; with ``more``, there is more of them to ask for."""

    mode: Mode
    version: Version
    content_hash: str
    documents: list[ManifestDocument]
    removed: list[OrgKey]
    file: OrgFileInfo | None = None
    more: bool = False


class ErasedUserRecord(msgspec.Struct, frozen=True, rename="camel"):
    """A caller who was forgotten, by the digest of project and id."""

    digest: str
    forgotten_at: Moment


class ErasuresResponse(msgspec.Struct, frozen=True):
    """Who was forgotten since a version; with ``more``, there are more to ask for."""

    version: Version
    users: list[ErasedUserRecord]
    more: bool = False


class EventRejectionRecord(msgspec.Struct, frozen=True, rename="camel"):
    """An event that will never be taken."""

    event_id: str | None = None
    code: str = "cloud.invalid"


class IngestReceipt(msgspec.Struct, frozen=True):
    """What became of a batch."""

    accepted: list[str]
    duplicate: list[str]
    rejected: list[EventRejectionRecord]


class ErrorResponse(msgspec.Struct, frozen=True):
    """The envelope of an error, as far as it is read."""

    error: dict[str, Any]


def read_bootstrap(content: bytes) -> Bootstrap:
    """Read the answer to bootstrap; raises `CloudError`, as all of these."""
    return _record(_builtins(content), Bootstrap)


def read_profile(content: bytes) -> ProfileResponse:
    """Read the profile, and compare its hash."""
    told = _builtins(content)
    _compare(told, ("summary", "attributes", "name", "metadata"))
    return _record(told, ProfileResponse)


def read_permanent(content: bytes) -> PermanentResponse:
    """Read a page of events and facts, and compare its hash."""
    told = _builtins(content)
    _compare(told, ("events", "facts", "removed"))
    if isinstance(told["events"], list):  # what a later version tells besides is for later versions
        told["events"] = [each for each in told["events"] if not _is_of_another_type(each)]
    return _record(told, PermanentResponse)


def read_org(content: bytes) -> OrgResponse:
    """Read a page of documents, and compare its hash."""
    answer = _record(_builtins(content), OrgResponse)
    told = [[each.index_name, each.id, each.text, each.metadata] for each in answer.documents]
    gone = [[each.index_name, each.id] for each in answer.removed]
    if content_hash([told, gone]) != answer.content_hash:
        raise unreadable("the hash of the documents is another")
    return answer


def read_forgotten(content: bytes) -> ErasuresResponse:
    """Read who was forgotten."""
    return _record(_builtins(content), ErasuresResponse)


def read_receipt(content: bytes) -> IngestReceipt:
    """Read what became of a batch."""
    return _record(_builtins(content), IngestReceipt)


def content_hash(told: Any) -> str:
    """SHA-256 of what was told as ASCII JSON, sorted, without spaces, as both sides make it."""
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _builtins(content: bytes) -> dict[str, Any]:
    # By the standard library, whose numbers and texts give the same JSON again, which the hash needs.
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise unreadable("it is no JSON") from None
    if not isinstance(told, dict):
        raise unreadable("it is no object")
    return told


def _compare(told: dict[str, Any], names: Sequence[str]) -> None:
    try:
        wanted = content_hash([told[name] for name in names])
    except KeyError:
        raise unreadable("a field is missing") from None
    if wanted != told.get("contentHash"):
        raise unreadable("the hash of what is told is another")


def _is_of_another_type(event: Any) -> bool:
    return isinstance(event, dict) and event.get("type") not in _KEPT_TYPES


def _record(told: dict[str, Any], kind: type[A]) -> A:
    try:
        return msgspec.convert(told, kind)
    except (msgspec.ValidationError, RecursionError):
        raise unreadable(f"it is no {kind.__name__}") from None
