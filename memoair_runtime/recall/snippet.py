"""Excerpts: of a long reply the sentences that matter for a question."""

from collections.abc import Sequence
from functools import lru_cache

from memoair_index import sentences, terms

# What is not longer stands as it is: a reply of some sentences is one thought.
MAX_WHOLE_CHARS = 400
_SNIPPET_CHARS = 320
_ELLIPSIS = " \N{HORIZONTAL ELLIPSIS} "


def extract_snippet(text: str, query: str) -> str:
    """The sentences of a long text that hold most of the question's words, in their order, at most some hundred signs.

    The first sentence of all stands in for the reply where none holds a word. What was left out is marked.
    """
    if len(text) <= MAX_WHOLE_CHARS:
        return text
    query_terms = _query_terms(query)
    sentence_texts, sentence_terms = _split_with_terms(text)
    match_counts = [len(query_terms & each) for each in sentence_terms]
    chosen: list[int] = []
    budget = _SNIPPET_CHARS
    for position in sorted(range(len(sentence_texts)), key=lambda number: (-match_counts[number], number)):
        if chosen and (len(sentence_texts[position]) > budget or not match_counts[position]):
            continue
        chosen.append(position)
        budget -= len(sentence_texts[position])
    return _join_chosen(sentence_texts, sorted(chosen))


@lru_cache(maxsize=64)
def _query_terms(query: str) -> frozenset[str]:
    """A question's terms: every long text that it finds is held against them."""
    return frozenset(terms(query))


@lru_cache(maxsize=512)  # at most 5 MB
def _split_with_terms(text: str) -> tuple[tuple[str, ...], tuple[frozenset[str], ...]]:
    """A text's sentences, and the terms of each. In a call the same long replies come again and again."""
    sentence_texts = tuple(sentences(text))
    return sentence_texts, tuple(frozenset(terms(part)) for part in sentence_texts)


def _join_chosen(sentence_texts: Sequence[str], chosen: Sequence[int]) -> str:
    text = _ELLIPSIS.lstrip() if chosen[0] else ""
    for rank, position in enumerate(chosen):
        if rank and chosen[rank - 1] != position - 1:
            text = text.rstrip() + _ELLIPSIS
        text += sentence_texts[position]
    return text if chosen[-1] == len(sentence_texts) - 1 else text.rstrip() + _ELLIPSIS.rstrip()
