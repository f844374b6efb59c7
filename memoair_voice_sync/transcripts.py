"""The former place of `memoair_transcripts`. It goes in the next release."""

import warnings
from typing import TYPE_CHECKING

from memoair_transcripts import *  # noqa: F403
from memoair_transcripts import Rejection

warnings.warn("memoair_voice_sync.transcripts is now memoair_transcripts", DeprecationWarning, stacklevel=2)

if not TYPE_CHECKING:  # otherwise type checkers would accept any name of this module

    def __getattr__(name: str) -> object:
        if name == "Refusal":
            message = "memoair_voice_sync.transcripts.Refusal is now memoair_transcripts.Rejection"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return Rejection
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
