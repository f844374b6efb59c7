"""What became of the facts that a language model suggested, and what its requests cost."""

from collections import Counter

import attrs

from memoair_protocol.chat_usage import TokenUsage


@attrs.define
class ModelUsage(TokenUsage):
    """What one extraction has used.

    Attributes:
        kept: Suggested facts that were kept.
        dropped: Suggested facts that were dropped, by reason.
    """

    kept: int = 0
    dropped: Counter[str] = attrs.field(factory=Counter)
