"""The former place of `memoair_transcripts`, which will be removed in the next release."""

import warnings
from typing import TYPE_CHECKING

import memoair_transcripts
from memoair_transcripts import *  # noqa: F403

warnings.warn("memoair_voice_sync.transcripts is now memoair_transcripts", DeprecationWarning, stacklevel=2)

_FORMER_NAMES = {"Refusal": "Rejection", "parse_moment": "parse_timestamp"}

if not TYPE_CHECKING:  # otherwise type checkers would accept any name of this module

    def __getattr__(name: str) -> object:
        if name not in _FORMER_NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        message = f"{__name__}.{name} is now memoair_transcripts.{_FORMER_NAMES[name]}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(memoair_transcripts, _FORMER_NAMES[name])
