"""The cloud's responses: parsed strictly, their hash checked, converted to typed records.

The field names of the records in camel case are the keys on the wire. All parse functions raise `CloudError` for a
malformed response.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from memoair_protocol.enums import EventType
from memoair_protocol.hashes import hash_content
from memoair_runtime.memory.profile import CloudProfile
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.replica_file import ReplicaFact, ReplicaPage
from memoair_runtime.storage.state_file import Days, Sha256, Timestamp, Version
from memoair_runtime.sync.errors import invalid_response

Mode = Literal["snapshot", "delta"]
_KNOWN_EVENT_TYPES = (EventType.SESSION_START.value, EventType.TURN.value)
StructT = TypeVar("StructT", bound=msgspec.Struct)


class OrgFileInfo(msgspec.Struct, frozen=True):
    """The index file that the cloud built last.

    Attributes:
        version: The version of the documents in it.
        sha256: The file's checksum, which is also its name.
        size: The file's size in bytes.
    """

    version: Version
    sha256: Sha256
    size: Version


class Bootstrap(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The versions of everything. Those of a user are None if the request named no user.

    Attributes:
        profile_version: Version of the profile.
        permanent_manifest_version: Version of events and facts.
        org_manifest_version: Version of the documents.
        forgotten_version: Version of the list of erasures.
        forgotten_at: When the cloud erased the user last.
        erasure: The mark of what is logged after that; None if the cloud gives none.
        org_file: The index file of documents that the cloud built last.
        sync_token: Identifies this state.
        retention_version: Version of how long turns are kept; None if the cloud does not say.
        epoch: Identifies the data that the versions count. A cloud that was restored from a backup has another one.
            None if the cloud names none.
        recall_traces: What machines of the project keep of searches by default.
    """

    profile_version: Version | None = None
    permanent_manifest_version: Version | None = None
    org_manifest_version: Version
    forgotten_version: Version
    forgotten_at: Timestamp | None = None
    erasure: str | None = None
    org_file: OrgFileInfo | None = None
    sync_token: str
    epoch: str | None = None
    recall_traces: str | None = None
    retention_version: Version | None = None


class RetentionResponse(msgspec.Struct, frozen=True, rename="camel"):
    """How long the project keeps turns, and of which users longer; see `memoair_runtime.storage.retention`."""

    version: Version
    turns_days: Days | None = None
    held: bool = False
    held_users: list[str] = []


class ProfileResponse(msgspec.Struct, frozen=True, rename="camel"):
    """The user's profile."""

    version: Version
    content_hash: str
    summary: str
    attributes: dict[str, Any]
    name: str | None
    metadata: dict[str, Any]

    def to_profile(self) -> CloudProfile:
        """Convert to the form in which a profile is stored."""
        return CloudProfile(self.version, self.summary, self.attributes, self.name, self.metadata)


class PermanentResponse(msgspec.Struct, frozen=True, rename="camel"):
    """A page of events and facts; ``more`` says whether another page follows."""

    mode: Mode
    version: Version
    more: bool
    content_hash: str
    events: list[Event]
    facts: list[ReplicaFact]
    removed: list[str]

    def to_page(self) -> ReplicaPage:
        """Convert to the form in which a page is stored."""
        return ReplicaPage(self.version, self.events, self.facts, self.removed)


class OrgKey(msgspec.Struct, frozen=True, rename="camel"):
    """The key of a document: the name of its index and its id there."""

    index_name: str
    id: str


class ManifestDocument(msgspec.Struct, frozen=True, rename="camel"):
    """A document with the name of its index and its id there. The manifest of the documents has the same fields."""

    index_name: str
    id: str
    text: str
    metadata: dict[str, Any] = {}

    @property
    def key(self) -> OrgKey:
        """The key of the document."""
        return OrgKey(self.index_name, self.id)


class OrgResponse(msgspec.Struct, frozen=True, rename="camel"):
    """A page of documents; ``more`` says whether another page follows."""

    mode: Mode
    version: Version
    content_hash: str
    documents: list[ManifestDocument]
    removed: list[OrgKey]
    file: OrgFileInfo | None = None
    more: bool = False


class ErasedUserRecord(msgspec.Struct, frozen=True, rename="camel"):
    """An erased user, by the digest of project and user id."""

    digest: str
    forgotten_at: Timestamp


class ErasuresResponse(msgspec.Struct, frozen=True):
    """A page of the list of erasures; ``more`` says whether another page follows."""

    version: Version
    users: list[ErasedUserRecord]
    more: bool = False


class EventRejectionRecord(msgspec.Struct, frozen=True, rename="camel"):
    """An event that the cloud has permanently rejected."""

    event_id: str | None = None
    code: str = "cloud.invalid"


class IngestReceipt(msgspec.Struct, frozen=True):
    """The outcome of a push.

    Attributes:
        accepted: Ids of new events.
        duplicate: Ids of events that the cloud already had.
        rejected: Events that it will never accept.
    """

    accepted: list[str]
    duplicate: list[str]
    rejected: list[EventRejectionRecord]


def parse_bootstrap(content: bytes) -> Bootstrap:
    """Parse the response to bootstrap."""
    return _convert(_decode_object(content), Bootstrap)


def parse_profile(content: bytes) -> ProfileResponse:
    """Parse a profile and check its hash."""
    payload = _decode_object(content)
    _check_hash(payload, ("summary", "attributes", "name", "metadata"))
    return _convert(payload, ProfileResponse)


def parse_permanent(content: bytes) -> PermanentResponse:
    """Parse a page of events and facts and check its hash."""
    payload = _decode_object(content)
    _check_hash(payload, ("events", "facts", "removed"))
    if isinstance(payload["events"], list):  # skip event types that a later protocol version may add
        payload["events"] = [event for event in payload["events"] if not _is_unknown_type(event)]
    return _convert(payload, PermanentResponse)


def parse_org(content: bytes) -> OrgResponse:
    """Parse a page of documents and check its hash."""
    response = _convert(_decode_object(content), OrgResponse)
    documents = [
        [document.index_name, document.id, document.text, document.metadata] for document in response.documents
    ]
    removed = [[key.index_name, key.id] for key in response.removed]
    if hash_content([documents, removed]) != response.content_hash:
        raise invalid_response("the content hash of the documents does not match")
    return response


def parse_erasures(content: bytes) -> ErasuresResponse:
    """Parse a page of the list of erasures."""
    return _convert(_decode_object(content), ErasuresResponse)


def parse_retention(content: bytes) -> RetentionResponse:
    """Parse how long turns are kept."""
    return _convert(_decode_object(content), RetentionResponse)


def parse_receipt(content: bytes) -> IngestReceipt:
    """Parse the outcome of a push."""
    return _convert(_decode_object(content), IngestReceipt)


def _decode_object(content: bytes) -> dict[str, Any]:
    # The standard library reads numbers and strings such that they encode to the same JSON again, which the hash needs.
    try:
        payload = json.loads(content)
    except (ValueError, RecursionError):
        raise invalid_response("not JSON") from None
    if not isinstance(payload, dict):
        raise invalid_response("not a JSON object")
    return payload


def _check_hash(payload: dict[str, Any], names: Sequence[str]) -> None:
    try:
        expected = hash_content([payload[name] for name in names])
    except KeyError:
        raise invalid_response("a field is missing") from None
    if expected != payload.get("contentHash"):
        raise invalid_response("the content hash does not match")


def _is_unknown_type(event: Any) -> bool:
    return isinstance(event, dict) and event.get("type") not in _KNOWN_EVENT_TYPES


def _convert(payload: dict[str, Any], kind: type[StructT]) -> StructT:
    try:
        return msgspec.convert(payload, kind)
    except (msgspec.ValidationError, RecursionError):
        raise invalid_response(f"not a valid {kind.__name__}") from None


class _TraceReceipt(msgspec.Struct, frozen=True):
    accepted: list[str]
    duplicate: list[str]
    rejected: list[Any]


def parse_trace_receipt(content: bytes) -> int:
    """Return how many of the recall traces that were sent the cloud has now."""
    receipt = _convert(_decode_object(content), _TraceReceipt)
    return len(receipt.accepted) + len(receipt.duplicate)
