"""The words of the wire that everybody inside uses, too."""

from enum import Enum


class LaneName(str, Enum):
    """The four lanes, in the order of their sections."""

    PROFILE = "profile"  # who the caller is
    WORKING = "working"  # what was said in this session
    PERMANENT = "permanent"  # what was said in every earlier one
    ORG = "org"  # what the organisation's documents say

    __hash__ = str.__hash__  # as that of the text that it is equal to; the enumeration's own is a call of Python


class Variant(str, Enum):
    """Which embedding a session's questions are read with: ``satham.variant`` on the wire."""

    DEFAULT = "default"  # the static one
    MEDIUM = "medium"  # and a transformer, for a second reading of the best, where a model is given


class Intent(str, Enum):
    """What the answer is for."""

    ANSWER_CURRENT_USER = "answer_current_user"
    SUMMARISE_RECENT = "summarise_recent"
    EARLIER_IN_CALL = "earlier_in_call"
    FALLBACK = "fallback"
