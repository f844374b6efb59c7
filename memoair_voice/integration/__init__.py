"""What the integrations of voice frameworks share: everything but the meaning of a framework's events.

An integration translates its framework's events into calls of `TurnAssembler`, which passes complete turns to
`TurnWriter.add`. Before an answer it calls `search_in_time` and puts `fence_text` of the result into the context. All
of it runs under `log_failures`, so that no failure of the memory reaches the session. ``docs/contributing.md`` shows a
complete integration. Only integrations import this package.
"""

from memoair_protocol.defaults import CLOUD_BASE_URL, RUNTIME_PORT_RANGE
from memoair_voice.integration.agent_prompt import PromptInstructions, make_agent_prompt
from memoair_voice.integration.call import NamedCall
from memoair_voice.integration.errors import error_code, log_failures
from memoair_voice.integration.identity import (
    IDENTITY_FIELDS,
    complete_identity,
    find_missing,
    read_environment,
    resolve_user,
)
from memoair_voice.integration.key_terms import find_key_terms
from memoair_voice.integration.recall import (
    MAX_CONTEXT_CHARS,
    fence_text,
    is_fenced,
    remove_known_turns,
    search_in_time,
)
from memoair_voice.integration.tracing import traced_by
from memoair_voice.integration.turn_assembler import AssembledTurn, TurnAssembler, TurnEvent, TurnState
from memoair_voice.integration.turn_writer import TurnWriter
from memoair_voice_sync._tools.tool import (
    INTENT_DESCRIPTION as TOOL_INTENT_DESCRIPTION,
)
from memoair_voice_sync._tools.tool import (
    QUERY_DESCRIPTION as TOOL_QUERY_DESCRIPTION,
)
from memoair_voice_sync._tools.tool import (
    TOOL_DESCRIPTION,
    TOOL_NAME,
)

__all__ = [
    "CLOUD_BASE_URL",
    "IDENTITY_FIELDS",
    "MAX_CONTEXT_CHARS",
    "RUNTIME_PORT_RANGE",
    "TOOL_DESCRIPTION",
    "TOOL_INTENT_DESCRIPTION",
    "TOOL_NAME",
    "TOOL_QUERY_DESCRIPTION",
    "AssembledTurn",
    "NamedCall",
    "PromptInstructions",
    "TurnAssembler",
    "TurnEvent",
    "TurnState",
    "TurnWriter",
    "complete_identity",
    "error_code",
    "fence_text",
    "find_key_terms",
    "find_missing",
    "is_fenced",
    "log_failures",
    "make_agent_prompt",
    "read_environment",
    "remove_known_turns",
    "resolve_user",
    "search_in_time",
    "traced_by",
]
