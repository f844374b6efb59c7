"""Redaction: the application's hook removes parts of what is said and stated before any of it is saved."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._turns.recent_talk import CallKey, Preceding, RecentTalk
from memoair_voice_sync._turns.turn import PastCall, Turn
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The time of the turn. Some hooks take it for a telephone number.
_TIME_FIELD = "occurredAt"
_MAX_QUESTION_CHARS = 200
_MIN_ID_DIGITS = 7
# Why calls end, if the application says nothing else.
_OWN_REASONS = frozenset(["completed", "closed", "imported"])
# Names of fields that frameworks and this package read. They come from programs, and no caller says them.
_KNOWN_FIELDS = frozenset(
    "id name type function arguments result output ok status error latencyMs hits call_id heard interrupted occurredAt"
    " assistantName user metadata language timeZone speaker source framework".split()
)


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
    _warned: set[str] = attrs.field(factory=set, alias="warned")  # the kinds of ids that the log warned of

    def redact_turn(self, turn: Turn, call: CallKey | None = None, after: str = "") -> Turn:
        """Return a turn without what the hook removes.

        The hook sees both texts, and each text, number and name of a field in metadata and tool calls. It sees numbers
        that were said in words as digits, too, and what it removes there is removed. A hook of
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
        if call is not None:
            self._warn_of_ids(user_id=call[0], session_id=call[1])
        self._warn_of_ids(turn_id=turn.turn_id)
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

    def redact_reason(self, reason: str) -> str:
        """Return why a call has ended as the hook leaves it. Our own words are no caller's, and need no hook."""
        return reason if reason in _OWN_REASONS else self.redact_text(reason)

    def redact_call(self, turns: Sequence[Turn]) -> list[Turn]:
        """Return the turns of a whole call without what the hook removes; see `redact_turn`."""
        once, call = Redaction(self.hook, warned=self._warned), ("", None)
        texts_after = [*(turn.user_text for turn in turns[1:]), ""]
        return [once.redact_turn(turn, call, after) for turn, after in zip(turns, texts_after, strict=False)]

    def redact_past_call(self, call: PastCall, user_id: str) -> PastCall:
        """Return a call that is over without what the hook removes; see `redact_turn` and `redact_metadata`."""
        if self.hook is None:
            return call
        self._warn_of_ids(user_id=user_id, session_id=call.session_id)
        return attrs.evolve(call, turns=self.redact_call(call.turns), metadata=self.redact_metadata(call.metadata))

    def redact_metadata(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the metadata of a session without what the hook removes. Its ``user`` is treated as by `redact_user`.

        Raises:
            MemoAirVoiceMemoryError: ``redaction.failed`` if the hook fails.
        """
        if self.hook is None:
            return metadata
        user = metadata.get("user")
        others = {name: value for name, value in metadata.items() if name != "user" or not isinstance(value, Mapping)}
        try:
            redacted = _redact_metadata(others, self._redact_any)
            return redacted | ({"user": self._redact_stated(user)} if isinstance(user, Mapping) else {})
        except RecursionError:
            raise ValueError("metadata is nested too deeply") from None

    def redact_user(self, user: User) -> User:
        """Return a user without what the hook removes in the name and the metadata that the application states.

        The hook sees only what has a digit or an "@" in it: an application states who calls, and a hook that removes
        names must not remove this one. If the hook fails, only the id is left, and a warning is logged.
        """
        if self.hook is None or len(user.fields) == 1:
            return user
        try:
            fields = self._redact_stated(user.fields)
        except (MemoAirVoiceMemoryError, RecursionError):
            log.warning("the name and metadata of a user are not saved: action=redaction_failed")
            fields = {"id": user.id}
        return user if fields == user.fields else attrs.evolve(user, fields=fields)

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

    def _redact_any(self, value: Any) -> Any:
        return self.hook.redact_value(value) if isinstance(self.hook, TalkRedactor) else self._redact_value(value)

    def _redact_stated(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an application states of a user, redacted where it may hold a number or an address."""
        redacted: dict[str, Any] = {}
        for name, value in fields.items():
            if isinstance(value, Mapping):
                redacted[name] = self._redact_stated(value)
            elif name == "id" or not (_may_hold_number(value) or _may_hold_number(name)):
                redacted[name] = value
            else:
                redacted |= self._redact_any({name: value})
        return redacted

    def _warn_of_ids(self, **ids: object) -> None:
        """Warn once of each kind of id that the hook would change. Ids are not redacted, and are in files and logs."""
        for kind, value in ids.items():
            if self.hook is None or kind in self._warned or not isinstance(value, str):
                continue
            if _may_be_number(value):
                try:
                    is_changed = self.hook(value) != value
                except Exception:  # noqa: BLE001 - the texts of the turn meet the same hook, which raises there
                    return
                if is_changed:
                    self._warned.add(kind)
                    log.warning(
                        "an id reads as what redact= removes, and ids are not redacted; choose one without it:"
                        " action=id_not_redacted kind=%s",
                        kind,
                    )

    def _redact_value(self, value: Any) -> Any:
        from memoair_redaction.structures import digits_of, redact_keys  # only where there is a hook

        if isinstance(value, str):
            return self._redact_text(self._redact_json(value))
        if isinstance(value, Mapping):
            keys = redact_keys(value, lambda key: key if key in _KNOWN_FIELDS else self._redact_text(key))
            return {redacted: self._redact_value(value[key]) for key, redacted in keys}
        if isinstance(value, list | tuple):
            return [self._redact_value(item) for item in value]
        digits = digits_of(value)
        redacted = digits if digits is None else self._redact_text(digits)
        return value if redacted == digits else redacted

    def _redact_json(self, text: str) -> str:
        """Return a text whose JSON, if it is some, is redacted: a hook does not see through its escapes."""
        if text.lstrip()[:1] not in ("{", "["):
            return text
        try:
            parsed = json.loads(text)
        except ValueError:
            return text
        redacted = self._redact_value(parsed)
        return text if redacted == parsed else json.dumps(redacted, ensure_ascii=False)

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
    redacted: dict[str, Any] = redact_value({name: value for name, value in metadata.items() if name != _TIME_FIELD})
    return redacted | {name: value for name, value in metadata.items() if name == _TIME_FIELD}


def _may_be_number(identifier: str) -> bool:
    """Return whether an id has as many digits as a telephone number, or is an address."""
    return "@" in identifier or sum(map(str.isdigit, identifier)) >= _MIN_ID_DIGITS


def _may_hold_number(value: Any) -> bool:
    """Return whether a JSON value has a digit or an "@" in it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return "@" in text or any(map(str.isdigit, text))
