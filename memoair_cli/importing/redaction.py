"""Redact imported turns as the SDK redacts live ones."""

from collections.abc import Callable, Sequence

import attrs

from memoair_transcripts import TranscriptTexts
from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync.redaction import redact, redactor


def make_redaction(kinds: Sequence[str]) -> Callable[[TranscriptTexts], TranscriptTexts]:
    """Return a function that redacts the texts of a turn.

    Args:
        kinds: What to redact, of `memoair_voice_sync.redaction.KINDS`; if empty, what `redact` does.

    Raises:
        ValueError: A kind is unknown.
    """
    hook = redactor(*kinds) if kinds else redact
    redaction = Redaction(hook)

    def redact_name(name: str | None) -> str | None:
        # A messenger shows the number of a person without a name. "[phone number]" would not be a name either.
        return name if name is not None and hook(name) == name else None

    def redact_texts(texts: TranscriptTexts) -> TranscriptTexts:
        turn = redaction.redact_turn(
            Turn(
                turn_id="",
                user_text=texts.user_text,
                assistant_text=texts.assistant_text,
                tool_calls=(),
                metadata=texts.metadata,
            )
        )
        return attrs.evolve(
            texts,
            user_text=turn.user_text,
            assistant_text=turn.assistant_text,
            metadata=turn.metadata,
            user_name=redact_name(texts.user_name),
            assistant_name=redact_name(texts.assistant_name),
        )

    return redact_texts
