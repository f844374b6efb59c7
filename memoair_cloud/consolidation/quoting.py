"""Compare a model's words with what was said: words, numbers as numbers, and days as days."""

import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from functools import lru_cache

import attrs

from memoair_cloud.consolidation.date_expressions import DateRange, find_date_range, find_day_of_year, format_day
from memoair_cloud.consolidation.language import load_language
from memoair_cloud.consolidation.normalization import parse_utterance, remove_sounds
from memoair_cloud.consolidation.spoken_forms import write_spoken_forms
from memoair_index.analysis import STOP_WORDS
from memoair_index.folding import fold
from memoair_index.languages import stem
from memoair_redaction.spoken_text import write_digits

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_FILLER = frozenset("uh uhm um umm er erm hm hmm mm mhm ah eh ehm aeh \u00e4h \u00e4hm".split())
_NUMBER = re.compile(r"\+?\d(?:[\d ()./-]*\d)?")
_LISTED = re.compile(r"\+?\d(?:[\d (),./-]*\d)?")
_HESITATION = re.compile(rf",?\s+(?:{'|'.join(sorted(_FILLER, key=len, reverse=True))})\b,?", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# Scripts that put no spaces between words
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_PRONOUNS = frozenset(
    "caller caller's their theirs them they themselves user i me my mine we us our his her he she it its"
    " this that these those there here one thing things something anything everything".split()
)
_MIN_JOINED_DIGITS = 6


def tokenize(text: str) -> list[str]:
    """Return the words and numbers of a text without case, punctuation and hesitations."""
    plain = unicodedata.normalize("NFKC", remove_sounds(text)).replace("\N{MODIFIER LETTER APOSTROPHE}", "'").casefold()
    tokens = [unicodedata.normalize("NFC", token) for token in _TOKEN.findall(plain)]
    return [token for token in tokens if token not in _FILLER]


def words_in_order(text: str) -> str:
    """Return the words of a text in a form in which quotes of it can be found."""
    return f" {' '.join(tokenize(text))} "


def has_quote(said: str, quote: str) -> bool:
    """Return whether a text has a quote, word by word.

    Args:
        said: The text, as `words_in_order` writes it.
        quote: The quote.
    """
    quoted = words_in_order(quote)
    if not quoted.strip():
        return False
    if _UNSPACED.search(quote):
        return quoted.replace(" ", "") in said.replace(" ", "")
    return quoted in said


@lru_cache(maxsize=4096)
def _stem(token: str) -> str:
    return stem(token, "english") or fold(token)


def numbers_of(text: str) -> frozenset[str]:
    """Return the numbers of a text by their digits, said in words or not; rows of digits joined and apart."""
    written = _write_numbers(text)
    joined = {"".join(_DIGITS.findall(number)) for number in _NUMBER.findall(written)}
    # Hesitations and commas divide a phone number, but not a price from a number of people.
    listed = {"".join(_DIGITS.findall(row)) for row in _LISTED.findall(written)}
    return frozenset({*joined, *_DIGITS.findall(written), *(row for row in listed if len(row) >= _MIN_JOINED_DIGITS)})


def _write_numbers(text: str) -> str:
    return write_digits(_HESITATION.sub(" ", unicodedata.normalize("NFKC", remove_sounds(text)))).text


@attrs.frozen
class SaidWords:
    """The words of what was said, in the forms in which they may be written down.

    Attributes:
        text: What was said.
        today: The day on which it was said.
    """

    text: str
    today: date
    _words: frozenset[str] = attrs.field(init=False)
    _numbers: frozenset[str] = attrs.field(init=False)
    _ranges: tuple[DateRange | None, DateRange | None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        english = load_language()
        written_out = english.forms.expand_contractions(write_spoken_forms(self.text))
        forms = (self.text, written_out, *parse_utterance(self.text, english).sentences)
        future, past = (
            next(filter(None, (find_date_range(form, self.today, is_past=is_past) for form in reversed(forms))), None)
            for is_past in (False, True)
        )
        days = [text for found in (future, past) if found for text in _write_days(found)]
        day_of_year = find_day_of_year(self.text)
        days += [day_of_year] if day_of_year else []
        tokens = {token for form in (*forms, *days) for token in tokenize(form)}
        object.__setattr__(self, "_words", frozenset({*tokens, *map(_stem, tokens), *map(fold, tokens)}))
        object.__setattr__(self, "_numbers", frozenset().union(*map(numbers_of, (*forms, *days))))
        object.__setattr__(self, "_ranges", (future, past))

    @property
    def future(self) -> DateRange | None:
        """The days that are named, if they are to come."""
        return self._ranges[0]

    @property
    def past(self) -> DateRange | None:
        """The days that are named, if they are over."""
        return self._ranges[1]

    def has_numbers(self, text: str) -> bool:
        """Return whether each number of a text was said, too."""
        return all(self._has_number(number) for number in _NUMBER.findall(_write_numbers(text)))

    def has_words(self, text: str) -> bool:
        """Return whether each word of a text with a meaning was said, and at least one has one; numbers count."""
        content = content_words(text)
        return bool(content) and not self.missing_words(text)

    def missing_words(self, text: str) -> list[str]:
        """Return the words of a text with a meaning that were not said, numbers included."""
        if _UNSPACED.search(text):
            said = "".join(tokenize(self.text))
            return [] if "".join(tokenize(text)) in said else [text]
        missing = [] if self.has_numbers(text) else list(_NUMBER.findall(text))
        for email in _EMAIL.findall(text):
            if email.casefold() not in write_spoken_forms(self.text).casefold():
                return [email]
        # Digits were compared as numbers: "415-555-0123" is one number, and three words.
        words = (token for token in content_words(text) if not token.isdecimal())
        return missing + [token for token in words if not self._has_word(token)]

    def _has_word(self, token: str) -> bool:
        return (
            token in self._words or _stem(token) in self._words or fold(token) in self._words or self._has_spoken(token)
        )

    def _has_spoken(self, token: str) -> bool:
        numbers = numbers_of(token)  # "two" where the caller said "2"
        return bool(numbers) and numbers <= self._numbers

    def _has_number(self, number: str) -> bool:
        digits = _DIGITS.findall(number)
        joined = "".join(digits)
        return joined in self._numbers or (len(joined) < _MIN_JOINED_DIGITS and {*digits} <= self._numbers)


def content_words(text: str) -> list[str]:
    """Return the words of a text that have a meaning of their own, and its numbers."""
    return [token for token in tokenize(text) if token not in STOP_WORDS and token not in _PRONOUNS]


def _write_days(days: DateRange) -> Iterable[str]:
    yield days.description
    for day in (days.first, days.last):
        yield from (format_day(day), day.isoformat(), day.strftime("%d.%m.%Y"), day.strftime("%A"))
