"""Redaction: the application's hook removes parts of a turn before any of it is saved."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._turns.recent_talk import CallKey, Preceding, RecentTalk
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The time of the turn. Some hooks take it for a telephone number.
_TIME_FIELD = "occurredAt"
_MAX_QUESTION_CHARS = 200


@runtime_checkable
class TalkRedactor(Protocol):
    """A hook that finds numbers in more than one text at a time, as those of `memoair_voice_sync.redaction` do."""

    def __call__(self, text: str) -> str:
        """Return a redacted text."""
        ...

    def redact_value(self, value: Any, name: str = "") -> Any:
        """Return a redacted JSON value."""
        ...

    def redact_said(self, text: str, before: str = "", question: str = "", after: str = "") -> str:
        """Return a text, redacted with regard to what was said before and after it."""
        ...

    def tail(self, before: str, text: str) -> str:
        """Return what of a text matters for the next one."""
        ...


def validate_hook(hook: object) -> Callable[[str], str] | None:
    """Return the hook; raise TypeError if it is not callable."""
    if hook is not None and not callable(hook):
        raise TypeError(f"redact must be a function from str to str, not {type(hook).__name__}")
    return hook


@attrs.frozen
class Redaction:
    """The redaction of turns by a hook, if there is one. As thread-safe as the hook."""

    hook: Callable[[str], str] | None = attrs.field(converter=validate_hook)
    _recent: RecentTalk = attrs.field(init=False, factory=RecentTalk)

    def redact_turn(self, turn: Turn, call: CallKey | None = None, after: str = "") -> Turn:
        """Return a turn without what the hook removes.

        The hook sees both texts, and each text and whole number in metadata and tool calls, but not field names. It
        sees numbers that were said in words as digits, too, and what it removes there is removed. A hook of
        `memoair_voice_sync.redaction` also sees what belongs together, and what was said before in the call.

        Args:
            turn: The turn.
            call: Identifies the call; None if nothing was said before.
            after: What the caller says next, if it is known.

        Raises:
            MemoAirVoiceMemoryError: ``redaction.failed`` if the hook fails: a text that the hook has not seen must not
                be saved.
        """
        if self.hook is None:
            return turn
        try:
            if isinstance(self.hook, TalkRedactor):
                return self._redact_in_talk(self.hook, turn, call, after)
            return attrs.evolve(
                turn,
                user_text=self._redact_said(turn.user_text),
                assistant_text=self._redact_said(turn.assistant_text),
                tool_calls=self._redact_value(turn.tool_calls),
                metadata=_redact_metadata(turn.metadata, self._redact_value),
            )
        except RecursionError:
            raise ValueError("tool_calls or metadata are nested too deeply") from None

    def redact_text(self, text: str) -> str:
        """Return a text that is not part of a turn without what the hook removes; unchanged without a hook.

        Raises:
            MemoAirVoiceMemoryError: ``redaction.failed`` if the hook fails.
        """
        if self.hook is None:
            return text
        if isinstance(self.hook, TalkRedactor):
            return self.hook.redact_said(text)
        return self._redact_said(text)

    def redact_call(self, turns: Sequence[Turn]) -> list[Turn]:
        """Return the turns of a whole call without what the hook removes; see `redact_turn`."""
        once, call = Redaction(self.hook), ("", None)
        texts_after = [*(turn.user_text for turn in turns[1:]), ""]
        return [once.redact_turn(turn, call, after) for turn, after in zip(turns, texts_after, strict=False)]

    def forget(self, user_id: str) -> None:
        """Drop what a user has said, which is in memory to recognize a number that continues."""
        self._recent.forget(user_id)

    def _redact_in_talk(self, hook: TalkRedactor, turn: Turn, call: CallKey | None, after: str) -> Turn:
        def follow(preceding: Preceding) -> Preceding:
            return Preceding(
                user=hook.tail(preceding.user, turn.user_text),
                assistant=hook.tail(preceding.assistant, turn.assistant_text),
                question=turn.assistant_text[-_MAX_QUESTION_CHARS:],
            )

        preceding = Preceding() if call is None else self._recent.advance(call, turn.turn_id, follow)
        return attrs.evolve(
            turn,
            user_text=hook.redact_said(turn.user_text, preceding.user, preceding.question, after),
            assistant_text=hook.redact_said(turn.assistant_text, preceding.assistant),
            tool_calls=hook.redact_value(turn.tool_calls),
            metadata=_redact_metadata(turn.metadata, hook.redact_value),
        )

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

    def _redact_said(self, text: str) -> str:
        """Return what the hook leaves of a text, also of the numbers in it that were said in words."""
        from memoair_redaction.foreign_hooks import redact_number_words  # with its patterns only where there is a hook

        return self._redact_text(redact_number_words(self._redact_text, text))

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


def _redact_metadata(metadata: Mapping[str, Any], redact_value: Callable[[Any], Any]) -> dict[str, Any]:
    redacted = redact_value({name: value for name, value in metadata.items() if name != _TIME_FIELD})
    return {name: value if name == _TIME_FIELD else redacted[name] for name, value in metadata.items()}
