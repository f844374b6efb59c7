"""What the threads of a runtime ask of its sync thread, and which lanes they may ask for."""

import attrs

from memoair_protocol.enums import LaneName

USER_SCOPES = frozenset([LaneName.PROFILE, LaneName.PERMANENT])
ALL_SCOPES = frozenset([LaneName.PROFILE, LaneName.PERMANENT, LaneName.ORG])


@attrs.define(eq=False)
class SyncRequest:
    """A request that a thread waits for: a pull of some scopes, or a push (None)."""

    scopes: frozenset[LaneName] | None
    deadline: float
    is_done: bool = False
    is_fulfilled: bool = False
