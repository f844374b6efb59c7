"""Utterances by what they say: which ones say nothing that answers a question, and which ones say the same.

All patterns match folded text. They need no punctuation or capitals, because a speech recognizer leaves them out.
"""

import re
from functools import lru_cache

from memoair_index import extract_terms, split_sentences
from memoair_index.analysis import split_words
from memoair_index.folding import fold

# Longer texts say something, whatever their form.
_MAX_EMPTY_CHARS = 240
_MAX_COURTESY_CHARS = 60
# Classifying an utterance takes up to 40 microseconds, a search classifies some 36, and a session finds the same again.
_MAX_CACHED = 8_192
# Words that change nothing about what is said.
_FILLERS = frozenset(
    "a an the um umm uh uhm er erm hm hmm mm ah oh well so okay ok please just actually again now then and hey hi hello"
    " sorry".split()
)
_COURTESIES = _FILLERS | frozenset(
    "yes yeah yep no nope sure right alright fine great good perfect cool thanks thank you very much many a lot bye"
    " goodbye see take care welcome you're there morning afternoon evening day night nice to meet too is that's it that"
    " all how are i'm today sounds got i have one later hallo danke tschuss bonjour merci hola gracias ciao"
    " grazie".split()
)
_OPENING = re.compile(rf"^(?:(?:{'|'.join(sorted(_FILLERS - {'a', 'an', 'the'}))})\b[\s,.!]*)*")
_COURTESY_START = re.compile(rf"\W*(?:{'|'.join(map(re.escape, sorted(_COURTESIES)))})\b[^.!\n]{{0,60}}[.!\n]")
_ASKS = re.compile(
    r"(?:what|when|where|who|whose|which|why|how|what's|when's|where's|who's|how's|whats|is|are|was|were|do|does|did"
    r"|can|could|will|would|shall|should|has|have|had|may|am|isn't|aren't|don't|doesn't|didn't|can't|couldn't|won't"
    r"|wouldn't|tell me (?:what|when|where|who|which|why|how|about)|remind me|do you (?:know|remember))\b"
)
_QUESTION_MARKS = "?\N{FULLWIDTH QUESTION MARK}\N{ARABIC QUESTION MARK}"
_NO_ANSWER = re.compile(
    r"\b(?:"
    r"(?:i|we) (?:do not|don't|dont|did not|didn't|can't|cannot|can not|could not|couldn't)"
    r" (?:really |actually |currently |yet )?"
    r"(?:know|see|find|recall|remember|tell|say|catch|get that|hear|understand"
    r"|have (?:that|this|any|access|an? (?:record|note|appointment|booking|order)))"
    r"|(?:i'm|i am|im|we are|we're) not (?:sure|certain|aware|able)"
    r"|no idea"
    r"|(?:i|we) have no (?:record|information|idea|note|appointment|booking|order|data)"
    r"|there(?:'s| is| are) no (?:record|note|appointment|booking|order|information|entry)"
    r"|nothing (?:on file|on record|about that|comes up)"
    r"|(?:let me|i'll|i will|i can) (?:just |quickly )?(?:check|look|see|find out)"
    r"|(?:one|a) (?:moment|second|minute)"
    r"|bear with me|hold on"
    r"|(?:could|can|would) you (?:please )?(?:repeat|say that|rephrase)"
    r"|how (?:can|may) i help"
    r")\b"
)


@lru_cache(maxsize=_MAX_CACHED)
def is_bare_question(text: str) -> bool:
    """Return whether an utterance only asks: each of its sentences is a question or a courtesy.

    Cached, because the searches of a session find the same utterances again and again.
    """
    if len(text) > _MAX_EMPTY_CHARS:
        return False
    folded = fold(text)
    if not _may_ask(folded):
        return False  # true of nearly all statements, and five times as fast as the rest
    sentences = [sentence for sentence in split_sentences(folded) if split_words(sentence)]
    asked = [_is_question(sentence) for sentence in sentences]
    return any(asked) and all(
        is_asked or _is_courtesy(sentence) for sentence, is_asked in zip(sentences, asked, strict=True)
    )


@lru_cache(maxsize=_MAX_CACHED)
def says_nothing(text: str, *, is_reply: bool) -> bool:
    """Return whether an utterance holds no answer to anything.

    That is a bare question, a greeting or another courtesy, or a reply such as "I don't know" and "Let me check".

    Args:
        text: What one side said.
        is_reply: Whether it is the agent's. A caller who does not know something may still say what it is about.
    """
    if len(text) > _MAX_EMPTY_CHARS:
        return False
    folded = fold(text)
    if _is_courtesy(folded) or is_bare_question(text):
        return True
    if not is_reply or not _NO_ANSWER.search(folded):
        return False
    sentences = [sentence for sentence in split_sentences(folded) if split_words(sentence)]
    return any(map(_NO_ANSWER.search, sentences)) and all(
        _NO_ANSWER.search(sentence) or _is_question(sentence) or _is_courtesy(sentence) for sentence in sentences
    )


@lru_cache(maxsize=_MAX_CACHED)
def content_key(text: str) -> tuple[str, ...]:
    """Return a key that is the same for utterances that say the same.

    Case, punctuation, articles and fillers do not count. Of a bare question, only the terms count, in any order: "What
    is my number?" and "My number, what was it again?" ask the same. What is stated differs with each other word,
    because a changed fact often differs from the old one by one word.
    """
    if is_bare_question(text):
        return ("?", *sorted(set(extract_terms(text)) - _FILLERS))
    words = split_words(fold(text))
    return tuple(word for word in words if word not in _FILLERS) or tuple(words)


@lru_cache(maxsize=_MAX_CACHED)
def key_terms(text: str) -> frozenset[str]:
    """Return the terms of an utterance; cached."""
    return frozenset(extract_terms(text))


def _is_question(folded: str) -> bool:
    if folded.rstrip(" \n\"')").endswith(tuple(_QUESTION_MARKS)):
        return True
    return bool(_ASKS.match(folded, _opening_end(folded)))


def _may_ask(folded: str) -> bool:
    """Return whether the first sentence may be a question or a courtesy, or there is any question mark."""
    if any(mark in folded for mark in _QUESTION_MARKS) or _is_question(folded):
        return True
    return _COURTESY_START.match(folded) is not None


def _opening_end(folded: str) -> int:
    opening = _OPENING.match(folded)
    return opening.end() if opening else 0


def _is_courtesy(folded: str) -> bool:
    return len(folded) <= _MAX_COURTESY_CHARS and all(word in _COURTESIES for word in split_words(folded))
