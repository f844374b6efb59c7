"""Sentence and passage splitting."""

import re

# A sentence ends after its end mark and the following space, a line at its line feed; scripts without spaces have marks
# of their own. Each alternative can begin a match at one place only: otherwise a long run of one character would take
# time quadratic in its length.
_END_MARKS = ".!?\N{HORIZONTAL ELLIPSIS}"
_SENTENCE_END = re.compile(rf"(?<![{_END_MARKS}])[{_END_MARKS}]+['\")\]]*\s+|[\u3002\uff01\uff1f\u0964\u061f]\s*|\n\s*")
# Long agent replies are recalled best in passages of this size: whole, they match every question; cut into single
# sentences, they lose their subject.
PASSAGE_CHARS = 700


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, each with its trailing space.

    Args:
        text: Any text.

    Returns:
        The sentences in order; joined, they are the text. Empty for an empty text.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True) if start < end]


def split_passages(text: str, size: int = PASSAGE_CHARS) -> list[str]:
    """Split a text into passages of whole sentences where they fit.

    Args:
        text: Any text.
        size: The maximum length of a passage in characters.

    Returns:
        The passages in order; joined, they are the text. At least one, also for an empty text.
    """
    if len(text) <= size:
        return [text]
    passages = [""]
    for sentence in split_sentences(text):
        for part in _split_long_sentence(sentence, size):
            if len(passages[-1]) + len(part) <= size:
                passages[-1] += part
            else:
                passages.append(part)
    return [passage for passage in passages if passage]


def _split_long_sentence(sentence: str, size: int) -> list[str]:
    """Return a sentence in parts of at most ``size`` characters, cut between words where there are any."""
    parts = []
    while len(sentence) > size:
        cut = sentence.rfind(" ", size // 2, size) + 1 or size
        parts.append(sentence[:cut])
        sentence = sentence[cut:]
    return [*parts, sentence]
