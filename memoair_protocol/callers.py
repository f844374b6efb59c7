"""How a profile says that several people use one number."""

from collections.abc import Mapping
from typing import Any

# The attribute with the names of those who are known. A profile that has it gives no name as the caller's.
CALLERS_ATTRIBUTE = "callers"


def has_several_callers(attributes: Mapping[str, Any]) -> bool:
    """Return whether the attributes of a profile say that several people call."""
    return bool(attributes.get(CALLERS_ATTRIBUTE))
