"""Consolidation: from the turns of calls to facts about the caller that stand, and to his profile.

Pure: no database, and no network unless a chat endpoint is configured. Raw turns stay recallable whatever happens here.
"""

from memoair_cloud.consolidation.chat import ChatEndpoint, ChatExtractor
from memoair_cloud.consolidation.merging import merge_facts, replace_sessions
from memoair_cloud.consolidation.records import CallTurn, Extraction, Extractor, Fact, FactKind, ProfileSummary
from memoair_cloud.consolidation.rules import RuleExtractor
from memoair_cloud.consolidation.summary import summarize_facts

__all__ = [
    "CallTurn",
    "ChatExtractor",
    "ChatEndpoint",
    "Extraction",
    "Extractor",
    "Fact",
    "FactKind",
    "ProfileSummary",
    "RuleExtractor",
    "merge_facts",
    "replace_sessions",
    "summarize_facts",
]
