"""Excerpts: of a long reply the sentences that matter for a question."""

from memoair_index import sentences, terms

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
    asked = frozenset(terms(question))
    parts = sentences(text)
    held = [len(asked.intersection(terms(part))) for part in parts]
    chosen: list[int] = []
    room = _EXCERPT_CHARS
    for number in sorted(range(len(parts)), key=lambda number: (-held[number], number)):
        if chosen and (len(parts[number]) > room or not held[number]):
            continue
        chosen.append(number)
        room -= len(parts[number])
    return _joined(parts, sorted(chosen))


def _joined(parts: list[str], chosen: list[int]) -> str:
    text = _LEFT_OUT.lstrip() if chosen[0] else ""
    for place, number in enumerate(chosen):
        if place and chosen[place - 1] != number - 1:
            text = text.rstrip() + _LEFT_OUT
        text += parts[number]
    return text if chosen[-1] == len(parts) - 1 else text.rstrip() + _LEFT_OUT.rstrip()
