"""From what was said to what was meant: hesitations left out, corrections carried out, one statement at a time."""

import re
from collections.abc import Callable

import attrs

from memoair_cloud.consolidation.date_expressions import names_a_time
from memoair_index import split_sentences

# What is longer, or has more lines, was not spoken: somebody has pasted a text, and who "I" is in it nobody knows.
MAX_CHARS = 2_000
MAX_LINES = 3
# What stands before an answer is a question, and its end is enough to know which.
_RECENT_CHARS = 500
# The rules look on from each sign; long runs of signs, and words that nobody speaks, would be looked through again and
# again.
_RUN = re.compile(r"(?<=[\s,.;:'\"-]{4})[\s,.;:'\"-]+")
_LONG_WORD = re.compile(r"\S{50,}")
_ROLE_PLAY = re.compile(
    r"\b(?:act as|act like|pretend|you are an?|imagine|role ?play|rewrite|rephrase|translate|proofread"
    r"|paraphrase|summari[sz]e"
    r"|for example|(?:write|draft|compose|create|generate) (?:me |us )?(?:an? |the |my |some )"
    r"|(?:just |only )?(?:kidding|joking)|dear|in the (?:story|book|movie|film|game|scene|novel))\b",
    re.IGNORECASE,
)

_SIGNS = str.maketrans(
    {
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{EM DASH}": " - ",
        "\N{EN DASH}": " - ",
    }
)
# Their points end no sentence.
_ABBREVIATED = re.compile(r"\b(St|Mr|Mrs|Ms|Dr|Prof)\.(?=\s)")
_FILLER = re.compile(
    r"(?:,\s*)?\b(?:u+h+|u+m+|e+r+m?|h+m+|mm+|ah+|oh|you know|i mean|like(?=,)|well(?=,)|by the way|actually(?=,)"
    r"|honestly(?=,)|basically(?=,)|to be honest)\b(?!\s+(?:that|what|how|the|if|when)\b)\s*,?(?:\s*\.\.\.)?",
    re.IGNORECASE,
)
_STUTTER = re.compile(r"\b((?:[\w']+\s+){0,2}[\w']+)(?:\s*(?:,|-|\.\.\.)\s*|\s+)\1\b", re.IGNORECASE)
_OPENING = re.compile(
    r"^(?:(?:yes|yeah|yep|no|nope|ok|okay|right|so|and|but|now|hi|hey|hello|hiya|good (?:morning|afternoon"
    r"|evening)|thanks"
    r"|thank you|sure|great|wow|also|anyway|listen|look|well|please)\b[\s,!.:-]*)+",
    re.IGNORECASE,
)

_TAKEN_BACK = r"(?:make (?:it|that)|i said|i meant?(?: to say)?|it's|that's|it is|it should be|that should be|it was)"
_CORRECTION = re.compile(
    rf"(?:^|[\s,.;-]+)(?:(?:no[,.]? )*(?:wait(?:[,.]? wait)*|hang on|hold on|sorry|actually)[,.]? (?:no"
    rf"|sorry)\b(?:[,.]? (?:wait|sorry|actually))*"
    rf"|(?:no[,.]? )+(?:wait(?:[,.]? wait)*|hang on|hold on|sorry|actually)\b(?:[,.]? (?:sorry|no))*"
    rf"|scratch that|correction|i misspoke|my mistake|or rather"
    rf"|(?:no|sorry|wait)(?=[,.]? {_TAKEN_BACK}\b)|(?:actually[,.]? )?(?=make (?:it|that)\b)|(?<=[,.]\s)no(?=,)"
    rf"|^no(?=,)|^sorry(?=,)"
    rf"|(?<=[,.]\s)sorry(?=,)|(?<=\.\.\.\s)no(?=,))[\s,.:-]*(?:{_TAKEN_BACK}\b[\s,]*)?",
    re.IGNORECASE,
)
_CLAUSE_START = re.compile(r"(?:i|i'm|i've|i'll|my|we|we're|we've|it's my)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\+?\d[\d ().-]*\d|\d")
_NAME = re.compile(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2}")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_NOT_NAMES = re.compile(
    r"I\b|I'|My\b|The\b|It\b|We\b|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May\b"
    r"|June|July|August"
    r"|September|October|November|December"
)

_DIGITS = {word: str(digit) for digit, word in enumerate("zero one two three four five six seven eight nine".split())}
_DIGITS |= {"oh": "0", "o": "0"}
_DIGIT_WORD = "|".join(_DIGITS)
# A number that is told digit by digit: a telephone number is not shorter.
_SPOKEN_NUMBER = re.compile(
    rf"\b(?:(?:double|triple)\s+)?(?:{_DIGIT_WORD})(?:[\s,-]+(?:(?:double|triple)\s+)?(?:{_DIGIT_WORD})){{5,}}\b",
    re.IGNORECASE,
)
_SPOKEN_MAIL = re.compile(r"\b([\w.+-]+(?: dot \w+)*) at (\w+(?: dot \w+)+)\b", re.IGNORECASE)

_QUESTION = re.compile(
    r"^(?:do|does|did|can|could|will|would|shall|should|is|are|am|was|were|have you|has|had|may i|what|what's"
    r"|which|who|who's|whose"
    r"|where|when is|when are|when do|when's|why|how)\b(?!,)|\?\W*$",
    re.IGNORECASE,
)
_UNREAL = re.compile(
    r"\b(?:if|unless|would|wouldn't|could|might|maybe|perhaps|wish|suppose|supposed|imagine|hope|hopefully"
    r"|hoping|let's say|probably"
    r"|possibly|not sure|unsure|wonder|wondering|wondered|guess|pretend|almost|nearly|dream(?:ed|t)? (?:that"
    r"|of)|as though|should"
    r"|i thought|i think|seems?|apparently|whether|what if|in case|either|otherwise|i'd(?! rather| prefer"
    r"| like to be called))\b",
    re.IGNORECASE,
)
_REPORTED = re.compile(
    r"\b(?:(?<!i )(?:said|says|saying|told|tells|asked|asks|claims|claimed|thinks|thought|believes|was like"
    r"|were like|goes(?=,)|wrote"
    r"|writes|reckons|heard)|according to|rumou?r|lyrics?)\b|\"",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
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
    """A speaker puts right what was said before this turn: a piece of the same sort takes the other's place."""

    sort: str
    piece: str


@attrs.frozen
class NormalizedText:
    """The statements of one side of a turn, and what it puts right of an earlier turn."""

    sentences: tuple[str, ...] = ()
    correction: SpokenCorrection | None = None


def understood(text: str) -> NormalizedText:
    """The sentences of a text as they were meant; none where somebody plays a part or has pasted a text."""
    text = _calmed(text[: MAX_CHARS + 1])
    if len(text) > MAX_CHARS or text.count("\n") >= MAX_LINES or _ROLE_PLAY.search(text):
        return NormalizedText()
    meant: list[str] = []
    correction = None
    for number, sentence in enumerate(split_sentences(_joined(_digits(_ABBREVIATED.sub(r"\1", text))))):
        clean = _fluent(sentence)
        opening = _CORRECTION.match(clean)
        if opening:
            piece = _piece(clean[opening.end() :])
            if piece and meant and (mended := _put_in(meant[-1], *piece)):
                meant[-1] = mended
                continue
            if piece and number == 0:
                correction = SpokenCorrection(*piece)
            clean = clean[opening.end() :] if not piece else _OPENING.sub("", clean)
        clean = _corrected(_OPENING.sub("", clean))
        if clean:
            meant.append(clean)
    return NormalizedText(tuple(meant), correction)


def recent(text: str) -> str:
    """The end of what was said just before, in which an answer is to be read."""
    return _calmed(text[-_RECENT_CHARS:])


def put_right(sentence: str, correction: SpokenCorrection) -> str | None:
    """A sentence with the corrected piece in place of the wrong one; None where it has no piece of that sort."""
    return _put_in(sentence, correction.sort, correction.piece)


def statements(sentence: str) -> list[str]:
    """The clauses of a sentence that are said to be so: no questions, no what-ifs, nothing that others say."""
    if _QUESTION.search(sentence) or re.search(r"\b(?:if|unless|whether)\b", sentence, re.IGNORECASE):
        return []
    if _REPORTED.search(sentence):
        return []
    clauses = [clause.strip(" ,.!?") for clause in _CLAUSE_END.split(sentence)]
    # "In March, I ..." is one thought.
    for place in range(len(clauses) - 1):
        time = names_a_time(clauses[place])
        if time and time[0] == clauses[place]:
            clauses[place], clauses[place + 1] = "", f"{clauses[place]}, {clauses[place + 1]}"
    return [clause for clause in clauses if clause and not _UNREAL.search(clause) and not _QUESTION.search(clause)]


def is_question(sentence: str) -> bool:
    """Whether a sentence asks."""
    return bool(_QUESTION.search(sentence))


def _calmed(text: str) -> str:
    """A text without what nobody speaks, each rule's time with it in bounds."""
    return _LONG_WORD.sub("", _RUN.sub("", text.translate(_SIGNS))).strip()


def _joined(text: str) -> str:
    """A text whose ellipses do not end sentences: who hesitates goes on."""
    return re.sub(r"\s*\.{3,}\s*", ", ", text)


def _digits(text: str) -> str:
    """Numbers and addresses that were told sign by sign, as one writes them."""
    text = _SPOKEN_NUMBER.sub(lambda match: _as_digits(match[0]), text)
    return _SPOKEN_MAIL.sub(
        lambda match: f"{match[1].replace(' dot ', '.')}@{match[2].replace(' dot ', '.')}".lower(), text
    )


def _as_digits(words: str) -> str:
    digits, times = "", 1
    for word in re.findall(r"\w+", words.lower()):
        if word in ("double", "triple"):
            times = 2 if word == "double" else 3
        else:
            digits += _DIGITS[word] * times
            times = 1
    return digits


def _fluent(sentence: str) -> str:
    clean = _FILLER.sub(" ", sentence)
    for _ in range(3):  # "my, my, my name"
        # "Buy Buy Baby" is a name; "my my name" is none.
        clean = _STUTTER.sub(lambda match: match[0] if match[0].istitle() and "," not in match[0] else match[1], clean)
    return re.sub(r"\s+([,.!?])", r"\1", re.sub(r"\s+", " ", clean)).strip(" ,-")


def _corrected(sentence: str) -> str:
    """A sentence after its own corrections; empty where it is not clear what they put right."""
    for _ in range(4):
        mark = next((each for each in _CORRECTION.finditer(sentence) if each.start()), None)
        if not mark:
            return sentence
        before, after = sentence[: mark.start()], sentence[mark.end() :]
        piece = _piece(after)
        if piece and (mended := _put_in(before, *piece)):
            sentence = mended
        else:
            sentence = after if _CLAUSE_START.match(after) else ""
    return ""


def _piece(text: str) -> tuple[str, str] | None:
    """The piece that a correction begins with, and of which sort it is."""
    finders: tuple[tuple[str, Callable[[str], re.Match[str] | None]], ...] = (
        ("mail", _MAIL.match),
        ("time", _time_at_the_start),
        ("number", _NUMBER.match),
        ("name", _name_at_the_start),
    )
    for sort, find in finders:
        found = find(text)
        if found and re.match(
            r"(?:,?\s+(?:please|instead|then|actually|sorry)\b)?\s*(?:[,.!?]|$)", text[found.end() :]
        ):
            return sort, found[0].strip()
    return None


def _time_at_the_start(text: str) -> re.Match[str] | None:
    found = names_a_time(text)
    return found if found and not found.start() else None


def _name_at_the_start(text: str) -> re.Match[str] | None:
    found = _NAME.match(text)
    return None if found and _NOT_NAMES.match(found[0]) else found


def _put_in(sentence: str, sort: str, piece: str) -> str | None:
    finder = {"mail": _MAIL, "number": _NUMBER, "name": _NAME}.get(sort)
    if finder:
        found = [each for each in finder.finditer(sentence) if sort != "name" or not _NOT_NAMES.match(each[0])]
        if sort == "name":
            found = [each for each in found if each.start()]
    else:
        # The last time of the sentence; "on Wednesday" gives its preposition to "Thursday".
        times = []
        offset = 0
        while time := names_a_time(sentence[offset:]):
            times.append((offset + time.start(), offset + time.end()))
            offset += time.end()
        if not times:
            return None
        start, end = times[-1]
        preposition = re.match(r"(?:on|by|for|until|till|before|since|from)\s+", sentence[start:end], re.IGNORECASE)
        has_own = re.match(
            r"(?:on|by|for|until|till|before|since|from|in|next|last|tomorrow|today)\b", piece, re.IGNORECASE
        )
        lead = preposition[0] if preposition and not has_own else ""
        return f"{sentence[:start]}{lead}{piece}{sentence[end:]}"
    if not found:
        return None
    return f"{sentence[: found[-1].start()]}{piece}{sentence[found[-1].end() :]}"
