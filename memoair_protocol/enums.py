"""Enumerations of the wire protocol."""

from enum import Enum


class EventType(str, Enum):
    """The kind of an event of a session."""

    SESSION_START = "session_start"  # a call began, or the caller became known; payload: user, metadata
    # The caller spoke and was answered; payload: turnId, userText, assistantText, toolCalls, metadata, and, if the
    # answer was interrupted, assistantFullText: the whole answer, of which the caller heard only assistantText.
    TURN = "turn"
    SESSION_END = "session_end"  # the call ended; payload: reason


class LaneName(str, Enum):
    """The four lanes, in the order of their sections in the context."""

    PROFILE = "profile"  # who the user is
    WORKING = "working"  # this session
    PERMANENT = "permanent"  # all earlier sessions, and facts
    ORG = "org"  # the organization's documents

    __hash__ = str.__hash__  # equal to the hash of the equal string; Enum's own __hash__ is a slow call of Python code


class Variant(str, Enum):
    """The embedding that answers a session's queries: ``satham.variant`` on the wire."""

    DEFAULT = "default"  # the static embedding
    MEDIUM = "medium"  # the static one, then a transformer that reranks the best hits if a model is configured


class Intent(str, Enum):
    """The purpose of a search."""

    ANSWER_CURRENT_USER = "answer_current_user"
    SUMMARIZE_RECENT = "summarise_recent"
    EARLIER_IN_CALL = "earlier_in_call"
    FALLBACK = "fallback"


class TraceMode(str, Enum):
    """What is kept of a search, in its recall trace."""

    OFF = "off"  # nothing
    IDS = "ids"  # ids and numbers, no words
    TEXT = "text"  # also the question and the recalled texts, both redacted


class RecallOrigin(str, Enum):
    """Who asked for a search."""

    TOOL = "tool"  # the language model, through a tool
    HOOK = "hook"  # an integration, by itself, before the model answers
    API = "api"  # the application
    FRAMEWORK = "framework"  # another program, on behalf of a model that it runs: for example through MCP
