"""Redaction: the application's hook removes parts of a turn before any of it is saved."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The time of the turn. Some hooks take it for a telephone number.
_TIME_FIELD = "occurredAt"


def validate_hook(hook: object) -> Callable[[str], str] | None:
    """Return the hook; raise TypeError if it is not callable."""
    if hook is not None and not callable(hook):
        raise TypeError(f"redact must be a function from str to str, not {type(hook).__name__}")
    return hook


@attrs.frozen
class Redaction:
    """The redaction of turns by a hook, if there is one. As thread-safe as the hook."""

    hook: Callable[[str], str] | None = attrs.field(converter=validate_hook)

    def redact_turn(self, turn: Turn) -> Turn:
        """Return a turn without what the hook removes.

        The hook sees both texts, and each text and whole number in metadata and tool calls, but not field names. Raises
        ``redaction.failed`` if the hook fails: a text that the hook has not seen must not be saved.
        """
        if self.hook is None:
            return turn
        try:
            return attrs.evolve(
                turn,
                user_text=self._redact_text(turn.user_text),
                assistant_text=self._redact_text(turn.assistant_text),
                tool_calls=self._redact_value(turn.tool_calls),
                metadata={
                    name: value if name == _TIME_FIELD else self._redact_value(value)
                    for name, value in turn.metadata.items()
                },
            )
        except RecursionError:
            raise ValueError("tool_calls or metadata are nested too deeply") from None

    def _redact_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact_text(value)
        if isinstance(value, Mapping):
            return {name: self._redact_value(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._redact_value(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            digits = str(value)
            redacted = self._redact_text(digits)
            return value if redacted == digits else redacted
        return value

    def _redact_text(self, text: str) -> str:
        assert self.hook is not None  # noqa: S101 - only called with a hook
        redacted: object = None
        failure = None
        try:
            redacted = self.hook(text)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the error, a text that the hook has not seen must not be saved
            failure = f"raised {type(error).__name__}"
        if isinstance(redacted, str):
            return redacted
        failure = failure or f"returned {type(redacted).__name__}"
        # Not raised from the hook's error, which may quote what was said, and whose traceback holds it.
        log.error("a turn is not saved because redact= failed: action=redaction_failed why=%s", failure)
        raise MemoAirVoiceMemoryError("redaction.failed", f"redact= {failure}; the turn was not saved")
