"""MemoAir Voice for LiveKit Agents: `MemoAirLiveKitAgent` is an ``Agent`` with memory."""

from typing import TYPE_CHECKING

from memoair_livekit._agent import MemoAirLiveKitAgent

if TYPE_CHECKING:
    __version__: str

__all__ = ["MemoAirLiveKitAgent"]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("memoair-livekit")
