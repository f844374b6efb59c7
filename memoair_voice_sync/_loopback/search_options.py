"""What a search is asked for: validated once, where the application's arguments arrive."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import memoair_voice_sync._arguments as check


@attrs.frozen
class SearchOptions:
    """The options of a search. None means: all lanes, the default number of hits, no filter, any confidence."""

    lanes: Sequence[str] | None
    intent: str
    top_k: Mapping[str, int] | None
    filter: Mapping[str, Any] | None = attrs.field(repr=False)
    min_confidence: float | None
    say_nothing_found: bool
    explain: bool

    @classmethod
    def parse(
        cls,
        lanes: Sequence[str] | None,
        intent: str,
        top_k: Mapping[str, int] | None,
        metadata_filter: Mapping[str, Any] | None,
        min_confidence: float | None = None,
        *,
        say_nothing_found: bool = False,
        explain: bool = False,
    ) -> "SearchOptions":
        """Validate the options; raise ValueError or TypeError that names the invalid one."""
        return cls(
            lanes=check.lanes(lanes),
            intent=check.text("intent", intent),
            top_k=None if top_k is None else check.json_mapping("top_k", top_k),
            filter=None if metadata_filter is None else check.json_mapping("filter", metadata_filter),
            min_confidence=None if min_confidence is None else check.fraction("min_confidence", min_confidence),
            say_nothing_found=check.flag("say_nothing_found", say_nothing_found),
            explain=check.flag("explain", explain),
        )
