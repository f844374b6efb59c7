"""From what was said to what was meant: remove hesitations, apply corrections, and split statements."""

import re
from collections.abc import Callable

import attrs

from memoair_cloud.consolidation.date_expressions import find_time_expression
from memoair_index import split_sentences

# A longer text, or one with more lines, was pasted and not spoken: it is unclear who "I" is in it.
MAX_CHARS = 2_000
MAX_LINES = 3
# An answer is interpreted by the question before it, for which the end of the previous text is enough.
_MAX_RECENT_CHARS = 500
# The patterns scan ahead from each character. Long runs of punctuation and unspeakably long words would be scanned over
# and over.
_PUNCTUATION_RUN = re.compile(r"(?<=[\s,.;:'\"-]{4})[\s,.;:'\"-]+")
_LONG_WORD = re.compile(r"\S{50,}")
_ROLE_PLAY = re.compile(
    r"\b(?:act as|act like|pretend|you are an?|imagine|role ?play|rewrite|rephrase|translate|proofread"
    r"|paraphrase|summari[sz]e"
    r"|for example|(?:write|draft|compose|create|generate) (?:me |us )?(?:an? |the |my |some )"
    r"|(?:just |only )?(?:kidding|joking)|dear|in the (?:story|book|movie|film|game|scene|novel))\b",
    re.IGNORECASE,
)

_TYPOGRAPHY = str.maketrans(
    {
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{EM DASH}": " - ",
        "\N{EN DASH}": " - ",
    }
)
# The period of these does not end a sentence.
_ABBREVIATION = re.compile(r"\b(St|Mr|Mrs|Ms|Dr|Prof)\.(?=\s)")
_FILLER = re.compile(
    r"(?:,\s*)?\b(?:u+h+|u+m+|e+r+m?|h+m+|mm+|ah+|oh|you know|i mean|like(?=,)|well(?=,)|by the way|actually(?=,)"
    r"|honestly(?=,)|basically(?=,)|to be honest)\b(?!\s+(?:that|what|how|the|if|when)\b)\s*,?(?:\s*\.\.\.)?",
    re.IGNORECASE,
)
_STUTTER = re.compile(r"\b((?:[\w']+\s+){0,2}[\w']+)(?:\s*(?:,|-|\.\.\.)\s*|\s+)\1\b", re.IGNORECASE)
_LEADING_FILLER = re.compile(
    r"^(?:(?:yes|yeah|yep|no|nope|ok|okay|right|so|and|but|now|hi|hey|hello|hiya|good (?:morning|afternoon"
    r"|evening)|thanks"
    r"|thank you|sure|great|wow|also|anyway|listen|look|well|please)\b[\s,!.:-]*)+",
    re.IGNORECASE,
)

_RESTATEMENT = r"(?:make (?:it|that)|i said|i meant?(?: to say)?|it's|that's|it is|it should be|that should be|it was)"
_CORRECTION_MARKER = re.compile(
    rf"(?:^|[\s,.;-]+)(?:(?:no[,.]? )*(?:wait(?:[,.]? wait)*|hang on|hold on|sorry|actually)[,.]? (?:no"
    rf"|sorry)\b(?:[,.]? (?:wait|sorry|actually))*"
    rf"|(?:no[,.]? )+(?:wait(?:[,.]? wait)*|hang on|hold on|sorry|actually)\b(?:[,.]? (?:sorry|no))*"
    rf"|scratch that|correction|i misspoke|my mistake|or rather"
    rf"|(?:no|sorry|wait)(?=[,.]? {_RESTATEMENT}\b)|(?:actually[,.]? )?(?=make (?:it|that)\b)|(?<=[,.]\s)no(?=,)"
    rf"|^no(?=,)|^sorry(?=,)"
    rf"|(?<=[,.]\s)sorry(?=,)|(?<=\.\.\.\s)no(?=,))[\s,.:-]*(?:{_RESTATEMENT}\b[\s,]*)?",
    re.IGNORECASE,
)
_CLAUSE_START = re.compile(r"(?:i|i'm|i've|i'll|my|we|we're|we've|it's my)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\+?\d[\d ().-]*\d|\d")
_NAME = re.compile(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2}")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_NOT_NAMES = re.compile(
    r"I\b|I'|My\b|The\b|It\b|We\b|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May\b"
    r"|June|July|August"
    r"|September|October|November|December"
)

_DIGITS = {word: str(digit) for digit, word in enumerate("zero one two three four five six seven eight nine".split())}
_DIGITS |= {"oh": "0", "o": "0"}
_DIGIT_WORD = "|".join(_DIGITS)
# A number that is spoken digit by digit: at least six digits, as in phone numbers.
_SPOKEN_NUMBER = re.compile(
    rf"\b(?:(?:double|triple)\s+)?(?:{_DIGIT_WORD})(?:[\s,-]+(?:(?:double|triple)\s+)?(?:{_DIGIT_WORD})){{5,}}\b",
    re.IGNORECASE,
)
_SPOKEN_EMAIL = re.compile(r"\b([\w.+-]+(?: dot \w+)*) at (\w+(?: dot \w+)+)\b", re.IGNORECASE)

_QUESTION = re.compile(
    r"^(?:do|does|did|can|could|will|would|shall|should|is|are|am|was|were|have you|has|had|may i|what|what's"
    r"|which|who|who's|whose"
    r"|where|when is|when are|when do|when's|why|how)\b(?!,)|\?\W*$",
    re.IGNORECASE,
)
_HYPOTHETICAL = re.compile(
    r"\b(?:if|unless|would|wouldn't|could|might|maybe|perhaps|wish|suppose|supposed|imagine|hope|hopefully"
    r"|hoping|let's say|probably"
    r"|possibly|not sure|unsure|wonder|wondering|wondered|guess|pretend|almost|nearly|dream(?:ed|t)? (?:that"
    r"|of)|as though|should"
    r"|i thought|i think|seems?|apparently|whether|what if|in case|either|otherwise|i'd(?! rather| prefer"
    r"| like to be called))\b",
    re.IGNORECASE,
)
_REPORTED_SPEECH = re.compile(
    r"\b(?:(?<!i )(?:said|says|saying|told|tells|asked|asks|claims|claimed|thinks|thought|believes|was like"
    r"|were like|goes(?=,)|wrote"
    r"|writes|reckons|heard)|according to|rumou?r|lyrics?)\b|\"",
    re.IGNORECASE,
)
_CLAUSE_BOUNDARY = re.compile(
    r"[;:]\s+|\s+-+\s+|,?\s+(?:because|but|although|though|while|whereas|so that|'cause|cause)\s+"
    r"|,?\s+so\s+(?=i\b|we\b|my\b)"
    r"|(?:,\s*|\s+)(?:and|so|and so|and then)\s+(?=(?:i|i'm|i've|i'll|we|we're|we've|we'll|my|it|it's|she|he"
    r"|they|that|you)\b)"
    r"|,\s*(?=(?:i|i'm|i've|we|we're|we've|my|which|who|it|it's|she|he|they|do|can|could|would|is|are|where"
    r"|what|you)\b)",
    re.IGNORECASE,
)


@attrs.frozen
class SpokenCorrection:
    """A correction of something said before this turn: its piece replaces a piece of the same type."""

    piece_type: str
    piece: str


@attrs.frozen
class NormalizedText:
    """The statements of one side of a turn, and its correction of an earlier turn."""

    sentences: tuple[str, ...] = ()
    correction: SpokenCorrection | None = None


def parse_utterance(text: str) -> NormalizedText:
    """Return the sentences of a text as they were meant; none if it is role play or a pasted text."""
    text = _strip_noise(text[: MAX_CHARS + 1])
    if len(text) > MAX_CHARS or text.count("\n") >= MAX_LINES or _ROLE_PLAY.search(text):
        return NormalizedText()
    sentences_so_far: list[str] = []
    correction = None
    for position, sentence in enumerate(split_sentences(_join_ellipses(_write_digits(_ABBREVIATION.sub(r"\1", text))))):
        clean = _remove_disfluencies(sentence)
        marker = _CORRECTION_MARKER.match(clean)
        if marker:
            piece = _find_correction_piece(clean[marker.end() :])
            if piece and sentences_so_far and (corrected := _replace_piece(sentences_so_far[-1], *piece)):
                sentences_so_far[-1] = corrected
                continue
            if piece and position == 0:
                correction = SpokenCorrection(*piece)
            clean = clean[marker.end() :] if not piece else _LEADING_FILLER.sub("", clean)
        clean = _apply_own_corrections(_LEADING_FILLER.sub("", clean))
        if clean:
            sentences_so_far.append(clean)
    return NormalizedText(tuple(sentences_so_far), correction)


def recent_text(text: str) -> str:
    """Return the end of what was said before an answer, which the answer refers to."""
    return _strip_noise(text[-_MAX_RECENT_CHARS:])


def apply_correction(sentence: str, correction: SpokenCorrection) -> str | None:
    """Return a sentence with the corrected piece; None if the sentence has no piece of that type."""
    return _replace_piece(sentence, correction.piece_type, correction.piece)


def split_statements(sentence: str) -> list[str]:
    """Return the clauses of a sentence that state facts: no questions, no hypotheses, no reported speech."""
    if _QUESTION.search(sentence) or re.search(r"\b(?:if|unless|whether)\b", sentence, re.IGNORECASE):
        return []
    if _REPORTED_SPEECH.search(sentence):
        return []
    clauses = [clause.strip(" ,.!?") for clause in _CLAUSE_BOUNDARY.split(sentence)]
    # "In March, I ..." is one clause.
    for position in range(len(clauses) - 1):
        time = find_time_expression(clauses[position])
        if time and time[0] == clauses[position]:
            clauses[position], clauses[position + 1] = "", f"{clauses[position]}, {clauses[position + 1]}"
    return [
        clause for clause in clauses if clause and not _HYPOTHETICAL.search(clause) and not _QUESTION.search(clause)
    ]


def _strip_noise(text: str) -> str:
    """Remove text that cannot have been spoken, which also limits the time that each rule needs."""
    return _LONG_WORD.sub("", _PUNCTUATION_RUN.sub("", text.translate(_TYPOGRAPHY))).strip()


def _join_ellipses(text: str) -> str:
    """Replace ellipses, so that they do not end a sentence: after a hesitation it goes on."""
    return re.sub(r"\s*\.{3,}\s*", ", ", text)


def _write_digits(text: str) -> str:
    """Convert spelled-out numbers and email addresses to their written form."""
    text = _SPOKEN_NUMBER.sub(lambda match: _to_digits(match[0]), text)
    return _SPOKEN_EMAIL.sub(
        lambda match: f"{match[1].replace(' dot ', '.')}@{match[2].replace(' dot ', '.')}".lower(), text
    )


def _to_digits(number_words: str) -> str:
    digits, repeat = "", 1
    for word in re.findall(r"\w+", number_words.lower()):
        if word in ("double", "triple"):
            repeat = 2 if word == "double" else 3
        else:
            digits += _DIGITS[word] * repeat
            repeat = 1
    return digits


def _remove_disfluencies(sentence: str) -> str:
    clean = _FILLER.sub(" ", sentence)
    for _ in range(3):  # "my, my, my name"
        # "Buy Buy Baby" is a name, "my my name" is not.
        clean = _STUTTER.sub(lambda match: match[0] if match[0].istitle() and "," not in match[0] else match[1], clean)
    return re.sub(r"\s+([,.!?])", r"\1", re.sub(r"\s+", " ", clean)).strip(" ,-")


def _apply_own_corrections(sentence: str) -> str:
    """Return a sentence after its own corrections; empty if it is unclear what they correct."""
    for _ in range(4):
        marker = next((match for match in _CORRECTION_MARKER.finditer(sentence) if match.start()), None)
        if not marker:
            return sentence
        before, after = sentence[: marker.start()], sentence[marker.end() :]
        piece = _find_correction_piece(after)
        if piece and (corrected := _replace_piece(before, *piece)):
            sentence = corrected
        else:
            sentence = after if _CLAUSE_START.match(after) else ""
    return ""


def _find_correction_piece(text: str) -> tuple[str, str] | None:
    """Return the piece that a correction begins with, and its type."""
    finders: tuple[tuple[str, Callable[[str], re.Match[str] | None]], ...] = (
        ("mail", _EMAIL.match),
        ("time", _match_time),
        ("number", _NUMBER.match),
        ("name", _match_name),
    )
    for piece_type, find in finders:
        found = find(text)
        if found and re.match(
            r"(?:,?\s+(?:please|instead|then|actually|sorry)\b)?\s*(?:[,.!?]|$)", text[found.end() :]
        ):
            return piece_type, found[0].strip()
    return None


def _match_time(text: str) -> re.Match[str] | None:
    found = find_time_expression(text)
    return found if found and not found.start() else None


def _match_name(text: str) -> re.Match[str] | None:
    found = _NAME.match(text)
    return None if found and _NOT_NAMES.match(found[0]) else found


def _replace_piece(sentence: str, piece_type: str, piece: str) -> str | None:
    pattern = {"mail": _EMAIL, "number": _NUMBER, "name": _NAME}.get(piece_type)
    if pattern:
        matches = [
            match for match in pattern.finditer(sentence) if piece_type != "name" or not _NOT_NAMES.match(match[0])
        ]
        if piece_type == "name":
            matches = [match for match in matches if match.start()]
    else:
        # Replace the last time of the sentence; "Thursday" takes the preposition of "on Wednesday".
        spans = []
        offset = 0
        while time := find_time_expression(sentence[offset:]):
            spans.append((offset + time.start(), offset + time.end()))
            offset += time.end()
        if not spans:
            return None
        start, end = spans[-1]
        preposition = re.match(r"(?:on|by|for|until|till|before|since|from)\s+", sentence[start:end], re.IGNORECASE)
        has_own = re.match(
            r"(?:on|by|for|until|till|before|since|from|in|next|last|tomorrow|today)\b", piece, re.IGNORECASE
        )
        added = preposition[0] if preposition and not has_own else ""
        return f"{sentence[:start]}{added}{piece}{sentence[end:]}"
    if not matches:
        return None
    return f"{sentence[: matches[-1].start()]}{piece}{sentence[matches[-1].end() :]}"
