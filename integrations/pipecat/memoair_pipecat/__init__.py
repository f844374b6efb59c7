"""Memory for voice agents on Pipecat: recalls before the language model answers, and saves what was said.

Place `MemoAirMemoryProcessor` in the pipeline between the user's context aggregator and the language model.
"""

from typing import TYPE_CHECKING

from memoair_pipecat._processor import MemoAirMemoryProcessor

if TYPE_CHECKING:
    __version__: str

__all__ = ["MemoAirMemoryProcessor"]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("memoair-pipecat")
