"""What an application takes out of what was said before any of it is kept."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log

_TEXT_FIELDS = ("user_text", "assistant_text")
# When it was spoken, which looks like a telephone number to some.
_TIME_FIELD = "occurredAt"


def validate_hook(hook: object) -> Callable[[str], str] | None:
    """The hook itself; raises TypeError for what is none."""
    if hook is not None and not callable(hook):
        raise TypeError(f"redact must be a function from str to str, not {type(hook).__name__}")
    return hook


@attrs.frozen
class Redaction:
    """Asks the hook, if there is one, for each text of a turn. As safe to use from any thread as the hook is."""

    hook: Callable[[str], str] | None = attrs.field(converter=validate_hook)

    def redact_turn(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        """A turn, as `MemoAirVoiceMemorySync.after_turn` takes it, without what the hook takes out.

        That is of both texts, and of each text and whole number in metadata and tool calls, but for the names of
        fields. Raises ``redaction.failed`` where the hook fails: what it should have seen is not kept.
        """
        if self.hook is None:
            return dict(turn)
        try:
            return {
                **turn,
                **{name: self._redact_text(turn[name]) for name in _TEXT_FIELDS},
                "tool_calls": self._redact_value(turn["tool_calls"]),
                "metadata": {
                    name: value if name == _TIME_FIELD else self._redact_value(value)
                    for name, value in turn["metadata"].items()
                },
            }
        except RecursionError:
            raise ValueError("tool_calls or metadata are nested too deep") from None

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
        assert self.hook is not None  # noqa: S101 - else nobody comes here
        redacted: object = None
        failure = None
        try:
            redacted = self.hook(text)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing may be kept that it has not seen
            failure = f"raised {type(error).__name__}"
        if isinstance(redacted, str):
            return redacted
        failure = failure or f"returned {type(redacted).__name__}"
        # Not from the hook's own error, which may quote what was said, and whose stack holds it.
        log.error("a turn is not kept, since redact= failed: action=redaction_failed why=%s", failure)
        raise MemoAirVoiceMemoryError("redaction.failed", f"redact= {failure}; the turn was not kept")
