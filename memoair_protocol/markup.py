"""What a chat template could take for a token of its own in recalled text, broken up by its form.

A model's host writes roles, turns and tools between words by tokens in brackets: ``<|im_start|>``, ``<|User|>``,
``<tool_call>``, ``<function=...>``, ``[TOOL_CALLS]``, ``[|user|]``, or by role headings such as ``### Human:``. Lists
of them are never complete, so their form counts, in the way that a reader sees it: without invisible characters, and
with wide and small characters as plain ones. The opening bracket becomes a parenthesis, and a heading loses its colon.
"""

import re
import unicodedata
from collections.abc import Iterator

# Roles that a template may name. A text that begins with the first ones and a colon reads as a heading.
_HEADING_ROLES = r"(?:system|assistant|user|human|ai|developer|chatbot|ipython)"
_ROLES = r"(?:system|assistant|user|human|ai|developer|chatbot|ipython|tool|function|model|bot|observation)"
# Plain words that are tokens by themselves. Others in angle brackets may be markup of a document.
_PLAIN_TOKENS = (
    r"(?:s|sys|[be]o[dpst]|eom|sop|pad|unk|sep|cls|mask|image|video|audio|think(?:ing)?|thought|tools?|functions?|invoke"
    r"|parameters?|arguments?|results?|output|escape|role|content|message|turn|answer|instructions?"
    "|\u7528\u6237|\u7cfb\u7edf|\u52a9\u624b|\u6a21\u578b)"
)
# What transcripts and redaction write in square brackets, and no model takes for a token.
_TRANSCRIPT_MARKS = (
    r"(?:IBAN|INAUDIBLE|UNINTELLIGIBLE|CROSSTALK|MUSIC|LAUGHTER|LAUGHS|APPLAUSE|NOISE|SILENCE|PAUSE|BLANK_AUDIO"
    r"|REDACTED|NAME|PERSON|PHONE|EMAIL|ADDRESS|LOCATION|DATE|NUMBER|CARD|(?:PHONE|CARD|ACCOUNT)_NUMBER|EMAIL_ADDRESS)"
)
# Quantifiers have limits, so that hostile text takes linear time.
_GAP = r"[ \t]{0,8}"
_TAG_NAME = r"[^\W\d][\w.:\-]{0,80}"
_TAG_END = rf"(?:{_GAP}/?>|{_GAP}=|[ \t]{{1,8}}[\w.:\-]{{1,80}}{_GAP}=)"
_OPENINGS = (
    rf"<(?={_GAP}\|)",
    rf"[<\u2039](?={_GAP}/?{_GAP}(?i:(?:system|assistant|developer|tool|user)\b|{_ROLES}{_GAP}[>\u203a]))",
    r">(?=>\w{1,40}<<)",
    rf"\[(?={_GAP}\|)",
    rf"\[(?={_GAP}/?{_GAP}(?i:inst|{_ROLES})(?:[ _]\w{{1,40}})?{_GAP}\])",
    rf"\[(?=/?(?!{_TRANSCRIPT_MARKS}\])(?=\w{{0,60}}(?:[A-Z]{{3}}|_))[^\W\d]\w{{0,60}}\])",
    r"\](?=[a-z]?[<>~!]{1,2}[a-z]?~?[\[\]])",
    r"\[(?=[a-z]?[<>~!]{1,2}[a-z]?~?\[)",
)
_ANY_TAG = rf"<(?=/?{_TAG_NAME}{_TAG_END})"
_TOKEN_TAG = (
    rf"<(?=/?(?:(?i:{_PLAIN_TOKENS}){_GAP}/?>|(?=[\w.\-]{{0,60}}(?:[\d_:=\-]|[A-Z]{{3}})){_TAG_NAME}{_TAG_END}))"
)
_BRACKETS = re.compile("|".join((*_OPENINGS, _ANY_TAG)))
_BRACKETS_OF_TOKENS = re.compile("|".join((*_OPENINGS, _TOKEN_TAG)))
# A role before a colon: where a text begins with it, in capitals anywhere, or behind the mark of a heading.
_ROLE_AT_START = re.compile(rf"[\W_]*(?i:{_HEADING_ROLES})")
_ROLE_ANYWHERE = re.compile(
    rf"(?:\b(?:USER|ASSISTANT|SYSTEM|HUMAN|GPT)|\b(?i:gpt4 correct (?:user|assistant))"
    rf"|#[\W_]{{0,8}}(?i:{_ROLES}|instructions?|input|response))$"
)
_ROLE_WORDS = frozenset(
    "system assistant user human ai developer chatbot ipython tool function model bot observation gpt instruction"
    " instructions input response".split()
)
_EMPHASIS = " \t*_`\"')]}"  # what may stand between a role and its colon
_WORD_CHAR = re.compile(r"[^\W_]")
_MAX_ROLE_CHARS = 40
_HEADING_MARKS = re.compile(r"(?<=[#\uff03\ufe5f])(?=[#\uff03\ufe5f])")
_HEADING_BREAKER = "\N{ZERO WIDTH NON-JOINER}"

# Characters that look like a bracket, a bar, a line or a colon and are none by NFKC.
_LOOKALIKES = (
    ("\u2039", "\u02c2\u1438\u2039\u2329\u276c\u276e\u27e8\u29fc\u3008"),
    ("\u203a", "\u02c3\u1433\u203a\u232a\u276d\u276f\u27e9\u29fd\u3009"),
    ("|", "\u01c0\u2223\u2502\u2758\u2759\uffe8\u00a6"),
    ("_", "\u2581"),
    (":", "\u2236\ua789\u02d0"),
)
# Characters without which a text has no markup.
MARKUP_CHARS = frozenset("<[]#:>\uff1c\uff1e\uff3b\uff3d\uff03\uff1a\ufe64\ufe65\ufe5f\ufe55\ufe47\ufe48\ufe13").union(
    _LOOKALIKES[0][1], _LOOKALIKES[4][1]
)
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
_MAX_FOLDED_CHARS = 1 << 14


class _FoldTable(dict[int, int]):
    """A table for `str.translate` that keeps the length: each character as it looks, if that is one character."""

    def __init__(self) -> None:
        super().__init__({code: code for code in range(128)})
        for plain, chars in _LOOKALIKES:
            self.update(dict.fromkeys(map(ord, chars), ord(plain)))

    def __missing__(self, code: int) -> int:
        plain = unicodedata.normalize("NFKC", chr(code))
        folded = self.get(ord(plain), ord(plain)) if len(plain) == 1 else code
        if len(self) < _MAX_FOLDED_CHARS:  # a text with all characters there are must not fill the memory
            self[code] = folded
        return folded


_FOLDED = _FoldTable()


def break_markup(text: str, *, keeps_plain_tags: bool = False) -> str:
    """Return a line in which nothing has the form of a chat template's token, of its role heading or of a heading.

    Idempotent. Takes time linear in the length of the text.

    Args:
        text: One line.
        keeps_plain_tags: Whether a plain word in angle brackets that is no known token stays, such as ``<b>``.
    """
    if MARKUP_CHARS.isdisjoint(text):
        return text
    chars = None
    for position, replacement in _find_markup(text, _BRACKETS_OF_TOKENS if keeps_plain_tags else _BRACKETS):
        chars = chars or list(text)
        chars[position] = replacement
    broken = text if chars is None else "".join(chars)
    return _HEADING_MARKS.sub(_HEADING_BREAKER, broken) if "#" in broken or not broken.isascii() else broken


def escape_markup(document: str) -> str:
    """Return a JSON document in which the brackets of tokens in texts are escaped; what it says is the same."""
    if MARKUP_CHARS.isdisjoint(document):
        return document
    chars = list(document)
    for position, replacement in _find_markup(document, _BRACKETS):
        if replacement == "(":
            chars[position] = f"\\u{ord(chars[position]):04x}"
    return "".join(chars)


def _find_markup(text: str, brackets: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield the positions of what makes a token or a role heading of a text, and what to put there instead."""
    folded = text if text.isascii() else text.translate(_FOLDED)
    positions: list[int] | None = None
    if folded is not text and _UNSEEN.search(folded):
        positions = [position for position, char in enumerate(folded) if not _UNSEEN.match(char)]
        folded = _UNSEEN.sub("", folded)
    found = [(match.start(), "(") for match in brackets.finditer(folded)] if _has_bracket(folded) else []
    found += [(place, " -") for place in _find_role_colons(folded)]
    for place, replacement in found:
        yield (place if positions is None else positions[place]), replacement


def _has_bracket(folded: str) -> bool:
    return "<" in folded or "[" in folded or "]" in folded or ">" in folded or "\u2039" in folded


def _find_role_colons(folded: str) -> Iterator[int]:
    """Yield the positions of the colons that make a heading of a role. Colons are common, roles before them are not."""
    place = folded.find(":")
    while place >= 0:
        before = folded[max(0, place - _MAX_ROLE_CHARS) : place].rstrip(_EMPHASIS)
        if _last_word(before) in _ROLE_WORDS and (
            _ROLE_ANYWHERE.search(before)
            or (_ROLE_AT_START.fullmatch(before) and not _WORD_CHAR.search(folded, 0, max(0, place - _MAX_ROLE_CHARS)))
        ):
            yield place
        place = folded.find(":", place + 1)


def _last_word(text: str) -> str:
    """Return the letters at the end of a text, in lower case. This is three times as fast as a pattern."""
    place = len(text)
    while place and text[place - 1].isalpha():
        place -= 1
    return text[place:].casefold()
