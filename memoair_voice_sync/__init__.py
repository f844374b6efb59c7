"""MemoAir Voice for threads: the memory that voice agents run on.

`MemoAirVoiceClientSync` serves all callers of an agent, `MemoAirVoiceMemorySync` serves one. Both start a small process
for each user on this machine (the runtime), search it before each answer, and save each turn to it. ``memoair_voice``
offers the same for asyncio and trio.
"""

from typing import TYPE_CHECKING

from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._pool.pool import RuntimePool
from memoair_voice_sync._tools.agent import MemoAirVoiceAgent
from memoair_voice_sync._tools.tool import MemoryToolSync
from memoair_voice_sync.client import MemoAirVoiceClientSync
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.memory import MemoAirVoiceMemorySync
from memoair_voice_sync.results import IndexBuildResult, IndexLoadResult, Prompt, RecallRecord, SearchResult
from memoair_voice_sync.session import VoiceSessionSync

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "IndexBuildResult",
    "IndexLoadResult",
    "MemoAirVoiceAgent",
    "MemoAirVoiceClientSync",
    "MemoAirVoiceMemoryError",
    "MemoAirVoiceMemorySync",
    "MemoryToolSync",
    "Prompt",
    "RecallRecord",
    "RuntimeHandle",
    "RuntimePool",
    "SearchResult",
    "VoiceSessionSync",
]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("memoair-voice")
