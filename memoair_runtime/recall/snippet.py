"""Excerpts: of a long reply the sentences that matter for a question."""

from collections.abc import Sequence
from functools import lru_cache

from memoair_index import extract_terms, split_sentences

# What is not longer stands as it is: a reply of some sentences is one thought.
WHOLE_CHARS = 400
_EXCERPT_CHARS = 320
_LEFT_OUT = " \N{HORIZONTAL ELLIPSIS} "


def excerpt(text: str, question: str) -> str:
    """The sentences of a long text that hold most of the question's words, in their order, at most some hundred signs.

    The first sentence of all stands in for the reply where none holds a word. What was left out is marked.
    """
    if len(text) <= WHOLE_CHARS:
        return text
    asked = _asked(question)
    parts, spoken = _sentences(text)
    held = [len(asked & each) for each in spoken]
    chosen: list[int] = []
    room = _EXCERPT_CHARS
    for number in sorted(range(len(parts)), key=lambda number: (-held[number], number)):
        if chosen and (len(parts[number]) > room or not held[number]):
            continue
        chosen.append(number)
        room -= len(parts[number])
    return _joined(parts, sorted(chosen))


@lru_cache(maxsize=64)
def _asked(question: str) -> frozenset[str]:
    """A question's terms: every long text that it finds is held against them."""
    return frozenset(extract_terms(question))


@lru_cache(maxsize=512)  # at most 5 MB
def _sentences(text: str) -> tuple[tuple[str, ...], tuple[frozenset[str], ...]]:
    """A text's sentences, and the terms of each. In a call the same long replies come again and again."""
    parts = tuple(split_sentences(text))
    return parts, tuple(frozenset(extract_terms(part)) for part in parts)


def _joined(parts: Sequence[str], chosen: Sequence[int]) -> str:
    text = _LEFT_OUT.lstrip() if chosen[0] else ""
    for place, number in enumerate(chosen):
        if place and chosen[place - 1] != number - 1:
            text = text.rstrip() + _LEFT_OUT
        text += parts[number]
    return text if chosen[-1] == len(parts) - 1 else text.rstrip() + _LEFT_OUT.rstrip()
