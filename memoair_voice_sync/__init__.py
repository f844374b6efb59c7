"""MemoAir Voice for threads: the memory that voice agents run on.

`MemoAirVoiceMemorySync` remembers for one caller: it starts a small process on this machine (the runtime), asks it
before each answer what is known that matters, and has it keep each turn. ``memoair_voice`` is the same for asyncio and
trio.
"""

from typing import TYPE_CHECKING

from memoair_voice_sync._agent import MemoAirVoiceAgent
from memoair_voice_sync._client import MemoAirVoiceClientSync
from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import RuntimeHandle
from memoair_voice_sync._memory import MemoAirVoiceMemorySync
from memoair_voice_sync._pool import RuntimePool
from memoair_voice_sync._results import IndexBuildResult, IndexLoadResult, SearchResult
from memoair_voice_sync._session import VoiceSessionSync
from memoair_voice_sync._tool import MemoryToolSync

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
