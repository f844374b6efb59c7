"""Sentences and passages: a long text in pieces that say one thing each."""

import re

# A sentence ends at its mark and the space behind it, a line at its feed; scripts without spaces have own marks.
# Each alternative begins where it can begin only once: else a long row of one sign would take the square of its length.
_END_MARKS = ".!?\N{HORIZONTAL ELLIPSIS}"
_SENTENCE_END = re.compile(rf"(?<![{_END_MARKS}])[{_END_MARKS}]+['\")\]]*\s+|[\u3002\uff01\uff1f\u0964\u061f]\s*|\n\s*")
# Long replies of agents, cut to this, recall best: whole, they match every question; by the sentence, they lose what
# they are about.
PASSAGE_CHARS = 700


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with the space behind it: put together, they are the text."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True) if start < end]


def split_passages(text: str, size: int = PASSAGE_CHARS) -> list[str]:
    """A text in pieces of at most ``size`` characters, whole sentences where they fit: put together, they are the text.

    At least one piece, also of an empty text.
    """
    if len(text) <= size:
        return [text]
    pieces = [""]
    for sentence in split_sentences(text):
        for part in _split_long_sentence(sentence, size):
            if len(pieces[-1]) + len(part) <= size:
                pieces[-1] += part
            else:
                pieces.append(part)
    return [piece for piece in pieces if piece]


def _split_long_sentence(sentence: str, size: int) -> list[str]:
    """A sentence that is too long, cut between words where it has any."""
    parts = []
    while len(sentence) > size:
        cut = sentence.rfind(" ", size // 2, size) + 1 or size
        parts.append(sentence[:cut])
        sentence = sentence[cut:]
    return [*parts, sentence]
