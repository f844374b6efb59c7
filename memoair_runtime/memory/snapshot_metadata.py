"""What a user's memory stores in the metadata of its index file."""

from collections.abc import Mapping
from typing import Any

import msgspec

from memoair_runtime.memory.speaker_names import SpeakerNamesRecord


class SnapshotMetadata(msgspec.Struct, frozen=True):
    """The memory's part of the metadata.

    Attributes:
        names: What is known about the names of both sides.
        profile: The profile as stated by applications, encoded.
        superseded: Ids of events that another one corrects. Files of earlier releases have none.
    """

    names: SpeakerNamesRecord
    profile: str
    superseded: tuple[str, ...] = ()


def encode_metadata(metadata: SnapshotMetadata) -> Mapping[str, Any]:
    """Return the metadata as JSON values."""
    encoded: Mapping[str, Any] = msgspec.to_builtins(metadata)
    return encoded


def decode_metadata(file_metadata: Mapping[str, Any]) -> SnapshotMetadata:
    """Return the memory's part of a file's metadata; raise ValueError if it has another structure."""
    return msgspec.convert(file_metadata, SnapshotMetadata)
