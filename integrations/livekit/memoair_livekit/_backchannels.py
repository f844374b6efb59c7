"""Backchannels: what a caller says only to signal that they listen.

Below 40 lines, but a matter of its own: which words they are.
"""

import re

_WORD_PATTERN = re.compile(r"\w+")
# As recognizers write them in English. Words that answer a question, such as "yes" and "sure", are none of them.
_BACKCHANNELS = frozenset(
    "ah aha ahh alright gotcha hm hmm huh mhm mhmm mm mmhm mmhmm mmm oh ok okay ooh right uh uhhuh um umhm yeah".split()
)
_PAIRS = (("i", "see"), ("got", "it"), ("go", "on"))
_MAX_WORDS = 4


def is_backchannel(text: str) -> bool:
    """Return whether a text consists of nothing but backchannels, such as "mm-hmm" or "okay, right"."""
    words = _WORD_PATTERN.findall(text.casefold())
    if not 0 < len(words) <= _MAX_WORDS:
        return False
    while words:
        if words[0] in _BACKCHANNELS:
            del words[0]
        elif tuple(words[:2]) in _PAIRS:
            del words[:2]
        else:
            return False
    return True
