"""What a search is asked for: validated once, where the application's arguments arrive."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import memoair_voice_sync._arguments as check


@attrs.frozen
class SearchOptions:
    """The options of a search. None means: all lanes, the default number of hits, no filter."""

    lanes: Sequence[str] | None
    intent: str
    top_k: Mapping[str, int] | None
    filter: Mapping[str, Any] | None = attrs.field(repr=False)
    explain: bool

    @classmethod
    def parse(
        cls,
        lanes: Sequence[str] | None,
        intent: str,
        top_k: Mapping[str, int] | None,
        metadata_filter: Mapping[str, Any] | None,
        *,
        explain: bool = False,
    ) -> "SearchOptions":
        """Validate the options; raise ValueError or TypeError that names the invalid one."""
        return cls(
            lanes=check.lanes(lanes),
            intent=check.text("intent", intent),
            top_k=None if top_k is None else check.json_mapping("top_k", top_k),
            filter=None if metadata_filter is None else check.json_mapping("filter", metadata_filter),
            explain=check.flag("explain", explain),
        )
