"""The former place of `memoair_transcripts`; it goes in the next release."""

import warnings

from memoair_transcripts import *  # noqa: F403

warnings.warn("memoair_voice_sync.transcripts is now memoair_transcripts", DeprecationWarning, stacklevel=2)
