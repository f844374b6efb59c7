"""From what was said to what was meant: remove hesitations and apply corrections."""

import re

import attrs

from memoair_cloud.consolidation.corrections import (
    SpokenCorrection,
    apply_own_corrections,
    correct_sentence,
    strip_marker,
)
from memoair_cloud.consolidation.language import Language
from memoair_cloud.consolidation.spoken_forms import write_spoken_forms
from memoair_index import split_sentences

# A longer text, or one with more lines, was pasted and not spoken: it is unclear who "I" is in it.
MAX_CHARS = 2_000
MAX_LINES = 3
# An answer is interpreted by the question before it, for which the end of the previous text is enough.
_MAX_RECENT_CHARS = 500
# The patterns scan ahead from each character. Long runs of punctuation and unspeakably long words would be scanned over
# and over.
_PUNCTUATION_RUN = re.compile(r"(?<=[\s,.;:'\"-]{4})[\s,.;:'\"-]+")
_LONG_WORD = re.compile(r"\S{50,}")
# What a recognizer writes for a sound: "[laughs]"
_SOUND = re.compile(
    r"[\[(<](?:laugh\w*|inaudible|noise|music|cough\w*|sigh\w*|pause|silence|crosstalk"
    r"|unintelligible|breath\w*|clears throat)[\])>]",
    re.IGNORECASE,
)
_TYPOGRAPHY = str.maketrans(
    {
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{EM DASH}": " - ",
        "\N{EN DASH}": " - ",
        # Spanish opens a question with its mark, too. The one at the end is enough.
        "\N{INVERTED QUESTION MARK}": "",
        "\N{INVERTED EXCLAMATION MARK}": "",
    }
)
_STUTTER = re.compile(r"\b((?:[\w']+\s+){0,2}[\w']+)(?:\s*(?:,|-|\.\.\.)\s*|\s+)\1\b", re.IGNORECASE)


@attrs.frozen
class NormalizedText:
    """The statements of one side of a turn, and its correction of an earlier turn."""

    sentences: tuple[str, ...] = ()
    correction: SpokenCorrection | None = None


def parse_utterance(text: str, language: Language) -> NormalizedText:
    """Return the sentences of a text as they were meant; none if it is a pasted text.

    Args:
        text: The text.
        language: The language. A word corrects the last one of the same list.
    """
    text = _strip_noise(text[: MAX_CHARS + 1])
    if len(text) > MAX_CHARS or text.count("\n") >= MAX_LINES:
        return NormalizedText()
    sentences_so_far: list[str] = []
    correction = None
    forms = language.forms
    spoken = forms.abbreviation.sub(r"\1", text)
    written = forms.join_asked_back(forms.write_digits(spoken) if forms.digits else write_spoken_forms(spoken))
    for position, sentence in enumerate(split_sentences(_join_ellipses(written))):
        clean = _remove_disfluencies(sentence, language)
        corrected, piece = correct_sentence(clean, sentences_so_far[-1] if sentences_so_far else None, language)
        if corrected:
            sentences_so_far[-1] = corrected
            continue
        if piece and position == 0:
            correction = piece
        clean = apply_own_corrections(clean if piece else strip_marker(clean, language), language)
        if clean:
            sentences_so_far.append(clean)
    return NormalizedText(tuple(sentences_so_far), correction)


def remove_sounds(text: str) -> str:
    """Return a text without what a recognizer writes for sounds, and with plain apostrophes."""
    return _SOUND.sub("", text.translate(_TYPOGRAPHY))


def recent_text(text: str) -> str:
    """Return the end of what was said before an answer, which the answer refers to."""
    return _strip_noise(text[-_MAX_RECENT_CHARS:])


def _strip_noise(text: str) -> str:
    """Remove text that cannot have been spoken, which also limits the time that each rule needs."""
    text = _SOUND.sub("", text)
    return _LONG_WORD.sub("", _PUNCTUATION_RUN.sub("", text.translate(_TYPOGRAPHY))).strip()


def _join_ellipses(text: str) -> str:
    """Replace ellipses, so that they do not end a sentence: after a hesitation it goes on."""
    return re.sub(r"\s*\.{3,}\s*", ", ", text)


def _remove_disfluencies(sentence: str, language: Language) -> str:
    clean = language.forms.filler.sub(" ", sentence)
    for _ in range(3):  # "my, my, my name"
        # "Buy Buy Baby" is a name, "my my name" is not.
        clean = _STUTTER.sub(lambda match: match[0] if match[0].istitle() and "," not in match[0] else match[1], clean)
    return re.sub(r"\s+([,.!?])", r"\1", re.sub(r"\s+", " ", clean)).strip(" ,-")
