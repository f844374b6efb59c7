"""MemoAir Voice for asyncio and trio: the methods of ``memoair_voice_sync``, awaited.

`MemoAirVoiceClient` serves all callers of an agent, `MemoAirVoiceMemory` serves one. Each method runs the method of the
same name in a worker thread; there is no logic here.
"""

from typing import TYPE_CHECKING

from memoair_voice._agent import MemoAirVoiceAgent
from memoair_voice._client import MemoAirVoiceClient, VoiceSession
from memoair_voice._memory import MemoAirVoiceMemory
from memoair_voice._tool import MemoryTool
from memoair_voice_sync import (
    IndexBuildResult,
    IndexLoadResult,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    MemoryToolSync,
    Prompt,
    RecallRecord,
    RuntimeHandle,
    RuntimePool,
    SearchResult,
    VoiceSessionSync,
)

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "IndexBuildResult",
    "IndexLoadResult",
    "MemoAirVoiceAgent",
    "MemoAirVoiceClient",
    "MemoAirVoiceClientSync",
    "MemoAirVoiceMemory",
    "MemoAirVoiceMemoryError",
    "MemoAirVoiceMemorySync",
    "MemoryTool",
    "MemoryToolSync",
    "Prompt",
    "RecallRecord",
    "RuntimeHandle",
    "RuntimePool",
    "SearchResult",
    "VoiceSession",
    "VoiceSessionSync",
]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import memoair_voice_sync

    return memoair_voice_sync.__version__
