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
from memoair_runtime.sync.errors import invalid_response

Version = Annotated[int, msgspec.Meta(ge=0)]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Mode = Literal["snapshot", "delta"]
_KNOWN_EVENT_TYPES = (EventType.SESSION_START.value, EventType.TURN.value)
StructT = TypeVar("StructT", bound=msgspec.Struct)


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
    forgotten_at: Timestamp | None = None
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

    def to_profile(self) -> CloudProfile:
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

    def to_page(self) -> ReplicaPage:
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
    forgotten_at: Timestamp


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


def parse_bootstrap(content: bytes) -> Bootstrap:
    """Read the answer to bootstrap; raises `CloudError`, as all of these."""
    return _convert(_decode_object(content), Bootstrap)


def parse_profile(content: bytes) -> ProfileResponse:
    """Read the profile, and compare its hash."""
    payload = _decode_object(content)
    _check_hash(payload, ("summary", "attributes", "name", "metadata"))
    return _convert(payload, ProfileResponse)


def parse_permanent(content: bytes) -> PermanentResponse:
    """Read a page of events and facts, and compare its hash."""
    payload = _decode_object(content)
    _check_hash(payload, ("events", "facts", "removed"))
    if isinstance(payload["events"], list):  # what a later version tells besides is for later versions
        payload["events"] = [each for each in payload["events"] if not _is_unknown_type(each)]
    return _convert(payload, PermanentResponse)


def parse_org(content: bytes) -> OrgResponse:
    """Read a page of documents, and compare its hash."""
    response = _convert(_decode_object(content), OrgResponse)
    documents = [[each.index_name, each.id, each.text, each.metadata] for each in response.documents]
    removed = [[each.index_name, each.id] for each in response.removed]
    if content_hash([documents, removed]) != response.content_hash:
        raise invalid_response("the hash of the documents is another")
    return response


def parse_erasures(content: bytes) -> ErasuresResponse:
    """Read who was forgotten."""
    return _convert(_decode_object(content), ErasuresResponse)


def parse_receipt(content: bytes) -> IngestReceipt:
    """Read what became of a batch."""
    return _convert(_decode_object(content), IngestReceipt)


def content_hash(content: Any) -> str:
    """SHA-256 of what was told as ASCII JSON, sorted, without spaces, as both sides make it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _decode_object(content: bytes) -> dict[str, Any]:
    # By the standard library, whose numbers and texts give the same JSON again, which the hash needs.
    try:
        payload = json.loads(content)
    except (ValueError, RecursionError):
        raise invalid_response("it is no JSON") from None
    if not isinstance(payload, dict):
        raise invalid_response("it is no object")
    return payload


def _check_hash(payload: dict[str, Any], names: Sequence[str]) -> None:
    try:
        expected = content_hash([payload[name] for name in names])
    except KeyError:
        raise invalid_response("a field is missing") from None
    if expected != payload.get("contentHash"):
        raise invalid_response("the hash of what is told is another")


def _is_unknown_type(event: Any) -> bool:
    return isinstance(event, dict) and event.get("type") not in _KNOWN_EVENT_TYPES


def _convert(payload: dict[str, Any], kind: type[StructT]) -> StructT:
    try:
        return msgspec.convert(payload, kind)
    except (msgspec.ValidationError, RecursionError):
        raise invalid_response(f"it is no {kind.__name__}") from None
