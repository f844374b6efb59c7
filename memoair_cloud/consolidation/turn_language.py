"""Decide in which language a turn is spoken, so that only the rules of that language read it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache

import attrs

from memoair_cloud.consolidation.language import ENGLISH, load_forms
from memoair_cloud.consolidation.records import CallTurn
from memoair_index.analysis import STOP_WORDS
from memoair_index.folding import fold
from memoair_index.languages import stop_words

OTHER = "other"
# Languages without rules, whose function words tell them from those with rules.
_OTHERS = (
    *("portuguese", "french", "indonesian", "turkish", "vietnamese", "italian", "polish", "dutch", "romanian"),
    *("hungarian", "czech", "swedish", "catalan", "danish", "finnish", "norwegian", "slovak", "german", "spanish"),
    *("russian", "ukrainian", "bulgarian", "arabic", "persian", "greek", "hindi", "hebrew", "armenian", "tamil"),
)
# What callers answer before, or instead of, their name, and no list of function words has.
_COURTESIES = {
    "french": "bonjour bonsoir salut merci attendez allo oui pardon",
    "italian": "buongiorno buonasera ciao grazie prego pronto scusi aspetti",
    "portuguese": "obrigado obrigada bom dia ola alo desculpe espere",
    "dutch": "dank bedankt goedemorgen goedemiddag hoi dag wacht alstublieft",
    "polish": "dziekuje prosze dobry czesc halo chwile",
    "turkish": "tesekkurler tesekkur merhaba selam alo efendim bekleyin",
    "swedish": "tack hej vanta forlat ursakta snalla",
    "danish": "tak goddag undskyld vent",
    "norwegian": "takk vennligst unnskyld",
    "czech": "dekuji prosim ahoj moment",
    "romanian": "multumesc salut asteptati",
    "russian": "спасибо здравствуйте привет алло подождите",
    "arabic": "شكرا مرحبا نعم لحظة",
    "hindi": "नमस्ते धन्यवाद हाँ",
}
# Its words are of no language.
_ADDRESS = re.compile(r"\S+@\S+|https?://\S+|www\.\S+")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SENTENCE_START = re.compile(r"(?:^|[.!?:\N{INVERTED QUESTION MARK}\N{INVERTED EXCLAMATION MARK}]\s*)\W*$")
_SENTENCE_START_CHARS = 8
# So much of a text shows its language. What is longer was pasted, and nothing is learned from it.
_MAX_CHARS = 2_000
# Of single letters, only these are words. Others, and those between hyphens, spell something.
_LETTER_WORDS = frozenset("iayoe")
# Scripts that none of the languages with rules use. A name may be written in them, a sentence may not.
_FOREIGN = re.compile("[\u0370-\u1cff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_MAX_FOREIGN_NAME_CHARS = 4  # of a script without spaces between words
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
# Function words of Chinese and Japanese: whatever holds one is a sentence.
_SENTENCE_SIGN = re.compile(
    "[\u6211\u4f60\u60a8\u8c22\u662f\u7684\u4e0d\u4e86\u5728\u5417\u4eec\u8fd9\u90a3\u5bf9\u306f\u3067\u3059\u307e\u3092\u304c]"
)
# A word of one language only counts whole, one that several have counts less. A word of a language's own list counts
# as much as two: it is rarely a function word of another.
_MARK_WEIGHT = 2.0
# English has the words of many languages among its own ("I", "a", "me"), and most calls are in English.
_MIN_ENGLISH_WEIGHT = 0.5
# Without a lead of so much over the next language, the turn is in the language that the call is in.
_MIN_LEAD = 0.2
_MIN_LEAD_OVER_CALL = 1.1


@cache
def _weights(languages: tuple[str, ...]) -> Mapping[str, tuple[tuple[str, float], ...]]:
    """Return by folded word which languages have it, and how much it shows each of them."""
    by_word: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for language in dict.fromkeys((ENGLISH, *_OTHERS, *languages)):
        for word in stop_words(language) | (STOP_WORDS if language == ENGLISH else frozenset()):
            by_word[fold(word)][language] = 1.0
    for language, courtesies in _COURTESIES.items():
        for word in fold(courtesies).split():
            by_word[word][language] = _MARK_WEIGHT
    for language in languages:
        for word in load_forms(language).marks:
            by_word[fold(word)][language] = _MARK_WEIGHT
    weights = {
        word: {language: weight / len(owners) for language, weight in owners.items()}
        for word, owners in by_word.items()
    }
    for word in map(fold, STOP_WORDS):
        weights[word][ENGLISH] = max(weights[word][ENGLISH], _MIN_ENGLISH_WEIGHT)
    return {word: tuple(owners.items()) for word, owners in weights.items()}


@cache
def _marks(languages: tuple[str, ...]) -> frozenset[str]:
    return frozenset(fold(word) for language in languages for word in load_forms(language).marks)


def _words_of(text: str, marks: AbstractSet[str]) -> dict[str, None]:
    """Return the words that may show a language, folded: no names inside of a sentence, and nothing that is spelled."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = _ADDRESS.sub(" ", text)
    words: dict[str, None] = {}
    for match in _WORD.finditer(text):
        word, start, end = match[0], match.start(), match.end()
        is_spelled = text[start - 1 : start] in ("-", ".") or text[end : end + 1] in ("-",)
        if len(word) == 1 and (word.lower() not in _LETTER_WORDS or is_spelled):
            continue
        folded = fold(word)
        is_name = word[0].isupper() and len(word) > 1 and word[1:2] != "'" and folded not in marks
        if is_name and not _SENTENCE_START.search(text[max(0, start - _SENTENCE_START_CHARS) : start]):
            continue
        words[folded] = None
        if "'" in word:  # "j'ai", "l'hotel"
            words.update((part, None) for part in folded.split("'") if len(part) > 1)
    return words


@attrs.frozen
class LanguageRecognizer:
    """Recognizes the languages that have rules.

    Attributes:
        languages: The languages, the one first that is assumed if nothing shows another.
    """

    languages: tuple[str, ...]

    def from_tag(self, tag: str) -> str | None:
        """Return the language of a tag as platforms send it: "de-DE", "es_MX", "german".

        Returns:
            A language with rules, `OTHER` for one without, None if there is no tag.
        """
        primary = re.split(r"[-_ ]", tag.strip().casefold())[0]
        if not primary or primary in ("und", "mul", "multi", "auto"):
            return None
        named = (name for name in self.languages if primary == name or primary in load_forms(name).tags)
        return next(named, OTHER)

    def recognize(self, text: str, assumed: str, min_lead: float = _MIN_LEAD) -> str:
        """Return the language of a text.

        Args:
            text: What was said.
            assumed: The language if the text does not show its own: a name, a number, "no".
            min_lead: How much more than the assumed language another must be shown.

        Returns:
            A language with rules, or `OTHER`.
        """
        text = text[:_MAX_CHARS]
        scores = self._score(text)
        if self._is_foreign_script(text) and not any(scores.get(language, 0.0) >= 1.0 for language in self.languages):
            return OTHER
        best = max(scores, key=lambda language: scores[language], default=assumed)
        if not scores or scores[best] - scores.get(assumed, 0.0) < min_lead:
            return assumed
        return best if best in self.languages else OTHER

    def shows(self, text: str, language: str) -> bool:
        """Return whether a text has words of a language."""
        return self._score(text[:_MAX_CHARS]).get(language, 0.0) > 0

    def _score(self, text: str) -> dict[str, float]:
        weights = _weights(self.languages)
        scores: defaultdict[str, float] = defaultdict(float)
        for word in _words_of(text, _marks(self.languages)):
            for language, weight in weights.get(word, ()):
                scores[language] += weight
        return dict(scores)

    @staticmethod
    def _is_foreign_script(text: str) -> bool:
        foreign = len(_FOREIGN.findall(text))
        letters = sum(map(str.isalpha, text))
        if 2 * foreign <= letters:
            return False
        if _UNSPACED.search(text):
            return bool(_SENTENCE_SIGN.search(text)) or foreign > _MAX_FOREIGN_NAME_CHARS
        return len(text.split()) > _MAX_FOREIGN_NAME_CHARS


def languages_of_turns(turns: Iterable[CallTurn], recognizer: LanguageRecognizer) -> list[str]:
    """Return the language of each turn of a call, in their order: what the caller said in it.

    A turn that does not show its language is in that of the agent's question before it, else in that of the call so
    far, else in that of the metadata, else in the first language.
    """
    found: list[str] = []
    call_language, question = "", ""
    for turn in turns:
        hinted = recognizer.from_tag(turn.language) or recognizer.languages[0]
        assumed = call_language or hinted
        if question:
            assumed = recognizer.recognize(question, assumed)
        is_known = bool(call_language or question)
        min_lead = _MIN_LEAD_OVER_CALL if is_known else _MIN_LEAD
        language = recognizer.recognize(turn.user_text, assumed, min_lead)
        shows = language != OTHER and recognizer.shows(turn.user_text, language)
        call_language = language if shows or language == OTHER else call_language
        found.append(language)
        question = turn.assistant_text[-_MAX_CHARS:]
    return found
