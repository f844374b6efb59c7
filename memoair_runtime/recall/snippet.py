"""Snippets: the sentences of a long reply that matter for a query."""

from collections.abc import Sequence
from functools import lru_cache

from memoair_index import extract_terms, split_sentences
from memoair_runtime.recall.utterances import key_terms

# Shorter texts stay whole: a reply of a few sentences is one thought.
MAX_WHOLE_CHARS = 400
_SNIPPET_CHARS = 320
_ELLIPSIS = " \N{HORIZONTAL ELLIPSIS} "


def extract_snippet(text: str, query: str) -> str:
    """Return the sentences of a long text that share most terms with the query.

    Args:
        text: The text. If it has at most `MAX_WHOLE_CHARS` characters, it is returned unchanged.
        query: The text of the query.

    Returns:
        The chosen sentences in their original order, about `_SNIPPET_CHARS` characters at most unless the best sentence
        alone is longer. Omitted parts are marked with an ellipsis. If no sentence shares a term with the query, the
        first one stands for the text.
    """
    if len(text) <= MAX_WHOLE_CHARS:
        return text
    query_terms = key_terms(query)
    sentence_texts, sentence_terms = _split_with_terms(text)
    match_counts = [len(query_terms & terms_of_sentence) for terms_of_sentence in sentence_terms]
    chosen: list[int] = []
    budget = _SNIPPET_CHARS
    for position in sorted(range(len(sentence_texts)), key=lambda index: (-match_counts[index], index)):
        if chosen and (len(sentence_texts[position]) > budget or not match_counts[position]):
            continue
        chosen.append(position)
        budget -= len(sentence_texts[position])
    return _join_chosen(sentence_texts, sorted(chosen))


@lru_cache(maxsize=512)  # at most 5 MB
def _split_with_terms(text: str) -> tuple[tuple[str, ...], tuple[frozenset[str], ...]]:
    """Return a text's sentences and the terms of each; cached, because a session finds the same replies repeatedly."""
    sentence_texts = tuple(split_sentences(text))
    return sentence_texts, tuple(frozenset(extract_terms(part)) for part in sentence_texts)


def _join_chosen(sentence_texts: Sequence[str], chosen: Sequence[int]) -> str:
    text = _ELLIPSIS.lstrip() if chosen[0] else ""
    for rank, position in enumerate(chosen):
        if rank and chosen[rank - 1] != position - 1:
            text = text.rstrip() + _ELLIPSIS
        text += sentence_texts[position]
    return text if chosen[-1] == len(sentence_texts) - 1 else text.rstrip() + _ELLIPSIS.rstrip()
