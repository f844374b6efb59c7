"""Consolidation: from the turns of calls to current facts about the caller, and to their profile.

It uses no database, and no network unless a chat endpoint is configured. It never changes the turns, which stay
recallable whatever happens here.
"""

from memoair_cloud.consolidation.chat import ChatExtractor
from memoair_cloud.consolidation.endings import is_ended
from memoair_cloud.consolidation.merging import is_end, merge_facts, replace_sessions
from memoair_cloud.consolidation.people import find_people
from memoair_cloud.consolidation.records import CallTurn, Extraction, Extractor, Fact, FactKind, ProfileSummary
from memoair_cloud.consolidation.rules import RuleExtractor
from memoair_cloud.consolidation.summary import summarize_facts
from memoair_cloud.consolidation.usage import ModelUsage
from memoair_protocol.chat_client import ChatEndpoint
from memoair_protocol.chat_usage import ModelPrices

__all__ = [
    "CallTurn",
    "ChatEndpoint",
    "ChatExtractor",
    "Extraction",
    "Extractor",
    "Fact",
    "FactKind",
    "ModelPrices",
    "ModelUsage",
    "ProfileSummary",
    "RuleExtractor",
    "find_people",
    "is_end",
    "is_ended",
    "merge_facts",
    "replace_sessions",
    "summarize_facts",
]
