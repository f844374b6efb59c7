"""The words of a turn: whether two deliveries of a turn say the same, and what a later one leaves unsaid."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import attrs

from memoair_protocol.interruption import FULL_TEXT_KEY


@attrs.frozen
class TurnWords:
    """The words of one delivery of a turn. Differences in whitespace and in the encoding of accents are ignored.

    Attributes:
        user_text: What the caller said.
        assistant_text: What the caller heard of the answer; None if the delivery does not say.
        full_text: The whole answer, if the caller heard only a part of it.
    """

    user_text: str = attrs.field(repr=False)
    assistant_text: str | None = attrs.field(repr=False)
    full_text: str = attrs.field(repr=False)

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> "TurnWords":
        """Return the words in the payload of a turn event."""
        full_text = _normalize(payload.get(FULL_TEXT_KEY))
        assistant_text = _normalize(payload.get("assistantText"))
        # An answer of which nothing was heard is a statement; an answer that is simply empty may still come.
        return cls(
            _normalize(payload.get("userText")), assistant_text if assistant_text or full_text else None, full_text
        )

    def version_key(self) -> "VersionKey":
        """Return what is kept in memory of the words, to recognize them."""
        return VersionKey(
            hash(self.user_text) if self.user_text else None,
            None if self.assistant_text is None else hash((self.assistant_text, self.full_text)),
        )


@attrs.frozen
class VersionKey:
    """Hashes of both sides of a turn, in this process. None stands for a side that is not said."""

    user: int | None
    assistant: int | None

    def is_covered_by(self, other: "VersionKey") -> bool:
        """Return whether another version has all that this one says."""
        return self.user in (None, other.user) and self.assistant in (None, other.assistant)


def fill_unsaid(payload: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return a later delivery of a turn, completed by the earlier one.

    A platform may send the two sides of a turn one after the other, so an empty side takes nothing back.

    Args:
        payload: The payload of the later delivery.
        earlier: The payload of the earlier one.
    """
    words = TurnWords.of(payload)
    filled = dict(payload)
    if not words.user_text:
        filled["userText"] = earlier.get("userText") or ""
    if words.assistant_text is None:
        filled["assistantText"] = earlier.get("assistantText") or ""
        filled |= {FULL_TEXT_KEY: earlier[FULL_TEXT_KEY]} if FULL_TEXT_KEY in earlier else {}
    filled["toolCalls"] = payload.get("toolCalls") or earlier.get("toolCalls") or []
    filled["metadata"] = {**(earlier.get("metadata") or {}), **(payload.get("metadata") or {})}
    return filled


def _normalize(text: object) -> str:
    words = " ".join(str(text or "").split())
    return words if words.isascii() else unicodedata.normalize("NFC", words)
