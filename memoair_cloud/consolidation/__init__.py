"""Consolidation: from the turns of calls to facts about the caller that stand, and to his profile.

Pure: no database, and no network unless a chat endpoint is configured. Raw turns stay recallable whatever happens here.
"""

from memoair_cloud.consolidation.chat import ChatExtractor, Endpoint
from memoair_cloud.consolidation.merging import merged, replaced
from memoair_cloud.consolidation.records import CallTurn, Extraction, Extractor, Fact, FactKind, ProfileSummary
from memoair_cloud.consolidation.rules import RuleExtractor
from memoair_cloud.consolidation.summary import summarise

__all__ = [
    "CallTurn",
    "ChatExtractor",
    "Endpoint",
    "Extraction",
    "Extractor",
    "Fact",
    "FactKind",
    "ProfileSummary",
    "RuleExtractor",
    "merged",
    "replaced",
    "summarise",
]
