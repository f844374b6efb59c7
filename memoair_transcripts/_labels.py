"""What a speaker's label is: how labels are compared, what a line begins with, and what looks like a label.

A line that looks labeled but names no known speaker must never go on with the speaker before it. So these rules are
broad: a colon after a few words, a time, a bullet, or bold print at the start of a line. What they find is not yet a
speaker; `Speakers` decides whether it names one.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache

import attrs

from memoair_transcripts._stamps import HAS_DATE, INNER_STAMP, LEADING_STAMP, TRAILING_STAMP

MAX_LABEL_CHARS = 120
_COLON = re.compile(r"[:\uff1a\ufe55\ufe13\u2236\ua789\u05c3]")  # full width, small, vertical, ratio, letter, Hebrew
# What else stands between a name and words: in tables, chats and captions.
_DIVIDER = re.compile(r"[ \t]*(?:\t|\|(?=\s)|>(?=\s)|(?P<dash>(?<=\s)[-\u2013\u2014](?=\s)))[ \t]*")
# The typographic variants of characters in names, which people and tools mix.
_VARIANTS = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u0060\u00b4", "'") | dict.fromkeys("\u2010\u2011", "-"))
_BULLET = re.compile(r"(?:[-\u2013\u2014\u2022\u2023\u25aa\u25cf\u25e6\u00b7]+|[*|](?=\s)|>{1,3}|#{1,6}(?=\s))\s*")
_SUBTITLE_STYLE = re.compile(r"\{\\[^{}]*\}")
_BOLD = re.compile(r"(\*\*|__|<b>|<strong>)\s*(?P<label>.+?)\s*(?:\*\*|__|</b>|</strong>)\s*(?P<rest>.*)", re.DOTALL)
_EMPHASIS = re.compile(
    r"[*_](?P<label>[^*_]+?)(?P<inner>[:\uff1a])?[*_]\s*(?P<outer>[:\uff1a])?\s*(?P<rest>.*)", re.DOTALL
)
_BRACKET = re.compile(
    r"(?:\[(?P<square>[^\[\]]+)\]|\((?P<round>[^()]+)\)|<(?P<angle>[^<>]+)>|\u3010(?P<wide>[^\u3011]+)\u3011)"
    r"\s*(?P<rest>.*)",
    re.DOTALL,
)
_MEETING_CHAT = re.compile(r"from\s+(?P<name>.+?)\s+to\s+.+", re.IGNORECASE)  # Zoom: "From Dana to Everyone"
_PARENTHESES = re.compile(r"(?P<base>.+?)\s*(?P<suffix>(?:[(\[][^()\[\]]*[)\]]\s*)+)")
_MARKUP = '*_#"\u201c\u201d\u00ab\u00bb'
_MAX_WORDS, _MAX_NAME_WORDS, _MAX_UNSPACED_CHARS = 7, 12, 30
_MAX_UNSPACED_NAME_CHARS = 8
_MAX_INNER_WORDS = 3
_MAX_MARKS = 4  # a bullet, a time, a bullet
_UNSPACED_SCRIPTS = (("\u0e00", "\u0eff"), ("\u1780", "\u17ff"), ("\u3040", "\u9fff"))  # Thai, Khmer, Japanese, ...
# No name ends with one of these, so "The options are: ..." is a sentence.
_SENTENCE_ENDINGS = frozenset(["am", "are", "be", "been", "is", "was", "were"])
# The words of names that begin with a small letter. A name with another one is not taken for a new speaker's.
_PARTICLES = frozenset(
    "a af al ap av bat bath ben bin bint d da das de degli dei del dela della den der des di do dos du e el ibn il la"
    " las le les lo los of och op st t te ten ter the und van vom von y z zu zum zur".split()
)
_SCHEMES = frozenset(["client", "http", "https", "mailto", "sip", "sips", "tel", "whatsapp"])
_ADDRESS = re.compile(r"(?:[a-z]+:)?(?:[^\s:@]+@[^\s:@]+|\+?[\d][\d\s()./-]{4,24})", re.IGNORECASE)


@attrs.frozen
class LineStart:
    """What a line begins with.

    Attributes:
        label: What may name the speaker, None if nothing does.
        text: What follows it.
        stamp: The time that the line begins with, or that its label ends with.
        is_marked: Whether the line begins an utterance, of any speaker: with a time, a bullet, or bold print.
        is_definite: Whether a label looks like this. Otherwise it may be words, unless it names a known speaker.
        is_notice: Whether a messenger, not a person, wrote the line.
        has_dash: Whether only a dash separates the label from the words, as it may separate words.
        is_alone: Whether the label is all of the line.
    """

    label: str | None
    text: str
    stamp: str | None = None
    is_marked: bool = False
    is_definite: bool = False
    is_notice: bool = False
    has_dash: bool = False
    is_alone: bool = False


def label_key(label: str) -> str:
    """Return what labels are compared by.

    Equal are labels that differ in case, spaces, invisible characters, the composition of accents, or the form of
    apostrophes and hyphens.
    """
    return _fold(label) if len(label) <= MAX_LABEL_CHARS else _fold.__wrapped__(label)


@lru_cache(4_096)
def _fold(label: str) -> str:
    text = unicodedata.normalize("NFKC", label.translate(_VARIANTS))
    if not text.isascii():
        text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())


def strip_parentheses(label: str) -> tuple[str, str]:
    """Return a label without what stands in parentheses at its end, such as pronouns or a company; and that."""
    match = _PARENTHESES.fullmatch(label) if len(label) <= MAX_LABEL_CHARS else None
    return (match["base"], match["suffix"].strip()) if match is not None else (label, "")


def is_address(label: str) -> bool:
    """Return whether a label is a telephone number or a mail or SIP address."""
    return _ADDRESS.fullmatch(label) is not None


def clean_line(text: str) -> str:
    """Return a line in composed form, without line breaks, and without what is invisible at its start."""
    text = unicodedata.normalize("NFC", text)
    if not text.isascii():
        text = text.replace("\u00a0", " ").replace("\u202f", " ").replace("\u2007", " ")
    return text.strip().lstrip("\ufeff\u200b\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069").lstrip()


def read_start(text: str, is_known: Callable[[str], bool]) -> LineStart:
    """Read the start of a line.

    Args:
        text: The line, as `clean_line` returns it.
        is_known: Whether a label names a known speaker.
    """
    text = _SUBTITLE_STYLE.sub("", text).lstrip()
    stamp, is_marked, has_dated_dash = None, False, False
    for _ in range(_MAX_MARKS):
        leading = LEADING_STAMP.match(text) if stamp is None else None
        match = leading or (None if _EMPHASIS.match(text) or _BOLD.match(text) else _BULLET.match(text))
        if match is None:
            break
        if leading is not None:
            stamp = leading["bracketed"] or leading["bare"]
            has_dated_dash = bool(HAS_DATE.match(stamp)) and leading["separator"].strip() == "-"
        is_marked = True
        text = text[match.end() :]
    start = _first_label(text, is_known, has_stamp=stamp is not None)
    is_attachment = stamp is not None and HAS_DATE.match(stamp) is not None and _is_notice(start.text)
    return attrs.evolve(
        start,
        stamp=stamp or start.stamp,
        is_marked=is_marked or start.is_marked,
        is_notice=is_attachment or (has_dated_dash and start.label is None and bool(text)),
    )


def _is_notice(text: str) -> bool:
    # WhatsApp marks its own words with an invisible character, or puts them between angle brackets.
    text = text.strip(" ")
    return text.startswith("\u200e") or (text.startswith("<") and text.endswith(">"))


def _first_label(text: str, is_known: Callable[[str], bool], *, has_stamp: bool) -> LineStart:
    for find in (_find_bold, _find_emphasized, _find_bracketed):
        found = find(text, is_known)
        if found is not None:
            return found
    found = (
        _find_before_colon(text, is_known, has_stamp=has_stamp)
        or _find_before_stamp(text, is_known)
        or _find_before_divider(text, is_known)
    )
    if found is not None:
        return found
    label = _clean_label(text)
    if label and len(label) <= MAX_LABEL_CHARS and is_known(label):  # a name on a line of its own
        return LineStart(label, "", is_definite=True, is_alone=True)
    return LineStart(None, text)


def _find_bold(text: str, _: Callable[[str], bool]) -> LineStart | None:
    match = _BOLD.match(text)
    if match is None or len(match["label"]) > MAX_LABEL_CHARS:
        return None
    label, stamp = _split_stamp(match["label"])
    rest = match["rest"]
    outer = _COLON.match(rest)
    rest = rest[outer.end() :] if outer else rest
    leading = LEADING_STAMP.match(rest.lstrip()) if stamp is None else None
    if leading is not None:
        stamp, rest = leading["bracketed"] or leading["bare"], rest.lstrip()[leading.end() :].lstrip(":")
    is_definite = stamp is not None or outer is not None or match["label"].endswith((":", "\uff1a"))
    return LineStart(_clean_label(label), rest, stamp, is_marked=True, is_definite=is_definite)  # not "**Note** that"


def _find_emphasized(text: str, _: Callable[[str], bool]) -> LineStart | None:
    match = _EMPHASIS.match(text)
    is_label = match is not None and (match["inner"] or match["outer"]) and len(match["label"]) <= MAX_LABEL_CHARS
    if match is None or not is_label:  # "*sighs* Well"
        return None
    return LineStart(_clean_label(match["label"]), match["rest"], is_marked=True, is_definite=True)


def _find_bracketed(text: str, is_known: Callable[[str], bool]) -> LineStart | None:
    match = _BRACKET.match(text)
    if match is None:
        return None
    label = match["square"] or match["round"] or match["angle"] or match["wide"]
    label, rest = _clean_label(label), match["rest"]
    if len(label) > MAX_LABEL_CHARS:
        return None
    colon, leading = _COLON.match(rest), LEADING_STAMP.match(rest)
    if colon is not None:
        return LineStart(label, rest[colon.end() :], is_definite=True)
    if leading is not None:
        stamp = leading["bracketed"] or leading["bare"]
        return LineStart(label, rest[leading.end() :], stamp, is_definite=True)
    if is_known(label):
        return LineStart(label, rest, is_definite=True)
    # "[Ben] No." names someone, "[laughs]" and "(softly) no" do not.
    has_words = any(char.isalnum() for char in rest)
    is_name = has_words and not label[:1].islower() and _word_count(label) <= _MAX_WORDS
    return LineStart(label, rest, is_marked=True) if is_name else LineStart(None, text)


def _find_before_colon(text: str, is_known: Callable[[str], bool], *, has_stamp: bool) -> LineStart | None:
    plausible: tuple[str, str] | None = None
    for colon in _COLON.finditer(text, 1, MAX_LABEL_CHARS):
        before, after = text[: colon.start()], text[colon.end() :]
        label, stamp = _split_stamp(before)
        chat = _MEETING_CHAT.fullmatch(label) if has_stamp else None
        label = _clean_label(chat["name"] if chat is not None else label)
        if label and is_known(label):
            return _with_inner_stamp(LineStart(label, after, stamp, is_definite=True))
        is_scheme = after.startswith("//") or (after[:1].strip() != "" and before.casefold() in _SCHEMES)
        if is_scheme or (before[-1].isdigit() and after[:1].isdigit()):  # an address, a time
            continue
        if before[-1].isspace() and after[:1] not in ("", " ", "\t"):  # ":)"
            continue
        if plausible is None and looks_like_label(label):
            plausible = before, after
        if not after[:1].strip():
            if plausible is None or not plausible[1][:1].strip():
                break
            if looks_like_label(label):  # "sip:dana@example.com: Hello"
                plausible = before, after
            break
    if plausible is None:
        return None
    label, stamp = _split_stamp(plausible[0])
    return _with_inner_stamp(LineStart(_clean_label(label), plausible[1], stamp, is_definite=True))


def _with_inner_stamp(start: LineStart) -> LineStart:
    """Take the time that stands after the colon: ``Dana: (00:03)``."""
    text = start.text.lstrip(" \t")
    match = LEADING_STAMP.match(text) if start.stamp is None else None
    if match is None or match["bracketed"] is None:
        return start
    return attrs.evolve(start, text=text[match.end() :], stamp=match["bracketed"])


def _find_before_stamp(text: str, is_known: Callable[[str], bool]) -> LineStart | None:
    match = INNER_STAMP.search(text, 1, MAX_LABEL_CHARS)
    if match is None:
        return None
    label, rest = _clean_label(text[: match.start()]), text[match.end() :]
    if not label or _word_count(label) > _MAX_NAME_WORDS:
        return None
    is_name = is_name_shaped(label) and not _begins_small(label)
    is_separated = (match["separator"] != " " and match["separator"].strip() != "at") or bool(match["open"])
    is_apart = not rest and is_separated and (is_name or _word_count(label) <= _MAX_WORDS)
    if not (is_known(label) or is_apart or is_name):  # "It came at 10:30"
        return None
    return LineStart(label, rest, match["stamp"], is_definite=is_apart)  # not "Monday 10:30"


def _find_before_divider(text: str, is_known: Callable[[str], bool]) -> LineStart | None:
    match = _DIVIDER.search(text, 1, MAX_LABEL_CHARS)
    if match is None:
        return None
    label, has_dash = _clean_label(text[: match.start()]), match["dash"] is not None
    is_short = bool(label) and not _begins_small(label) and _word_count(label) <= _MAX_INNER_WORDS
    is_name = not has_dash and is_short and is_name_shaped(label)
    if not label or not (is_known(label) or is_name):
        return None
    return LineStart(label, text[match.end() :], has_dash=has_dash)


def looks_like_name_line(text: str) -> bool:
    """Return whether a whole line is written like a name: few words with capitals, and nothing that ends a sentence."""
    is_short = 0 < _word_count(text) <= _MAX_INNER_WORDS + 1 and len(text) <= MAX_LABEL_CHARS
    return is_short and text[-1].isalpha() and not _begins_small(text) and is_name_shaped(text)


def _split_stamp(label: str) -> tuple[str, str | None]:
    match = TRAILING_STAMP.search(label.rstrip())
    return (label, None) if match is None else (label[: match.start()], match["stamp"])


def _clean_label(label: str) -> str:
    label = label.strip().strip(_MARKUP).strip()
    return label.rstrip(":\uff1a-\u2013\u2014| ").strip(_MARKUP).strip()


def _word_count(label: str) -> int:
    return len(label.split())


def looks_like_label(label: str) -> bool:
    """Return whether what precedes a colon looks like a label: a few words that are not a sentence."""
    if not any(char.isalnum() for char in label) or re.search(r"[?!\u2026]\s", label):
        return False
    words = label.split()
    if words[-1] in _SENTENCE_ENDINGS:
        return False
    if len(words) == 1 and not label.isascii() and _is_unspaced(label):
        return len(label) <= _MAX_UNSPACED_CHARS
    return len(words) <= _MAX_WORDS or (len(words) <= _MAX_NAME_WORDS and is_name_shaped(label))


def is_name_shaped(label: str) -> bool:
    """Return whether a label is written like a name: capitals, initials, particles; or an address."""
    if is_address(label):
        return True
    words = re.split(r"[\s,]+", strip_parentheses(label)[0].strip(" ,"))
    if len(words) == 1 and not label.isascii() and _is_unspaced(words[0]):
        return len(words[0]) <= _MAX_UNSPACED_NAME_CHARS or "\u30fb" in words[0]
    small = [word for word in words if _begins_small(word)]
    if not small:
        return True
    if len(words) == 1:
        return words[0].replace("-", "").replace("'", "").replace("_", "").isalnum()
    is_last_capital = not _begins_small(words[-1]) or any(char.isupper() for char in words[-1])  # "d'Arcy"
    return all(_is_particle(word) for word in small) and is_last_capital


def _begins_small(word: str) -> bool:
    letters = [char for char in word if char.isalpha()]
    return not letters or letters[0].islower() if not any(char.isdigit() for char in word) else False


def _is_particle(word: str) -> bool:
    # "d'Arcy" and "al-Rashid" begin with a particle.
    return re.split(r"['\u2019.-]", word.casefold(), maxsplit=1)[0] in {*_PARTICLES, ""}


def _is_unspaced(text: str) -> bool:
    """Return whether a text is in a script without spaces between words: Chinese, Japanese, Thai, ..."""
    return any(first <= char <= last for char in text for first, last in _UNSPACED_SCRIPTS)


# A label in the middle of a line, after a sentence: "Dana: Hello. Juno: Hi."
_INNER_LABEL = re.compile(
    r"(?:(?<=[.!?\u2026\u3002\uff01\uff1f)\]\"'\u201d\u2019])\s+[-\u2013\u2014]?\s*|(?<!\s)\s+[-\u2013\u2014]\s*|(?<=[\u3002\uff01\uff1f]))"
    r"(?P<label>[^:\uff1a?!\u3002]{1,60})[:\uff1a](?=\s|$|[^\x00-\x7f])"
)


def has_inner_name(text: str) -> bool:
    """Return whether a name stands behind a sentence and before a colon, as in "Hello. Ben: Hi"."""
    return any(
        all(char.isupper() for word in words for char in word[:1]) and len(words) <= _MAX_INNER_WORDS
        for match in _INNER_LABEL.finditer(text)
        if (words := match["label"].split())
    )


def split_inner_labels(text: str, is_known: Callable[[str], bool]) -> Iterator[tuple[str | None, str]]:
    """Split a text where a known speaker begins to speak. Yield labels and words; the first words have no label."""
    label: str | None = None
    begin, position = 0, 0
    while match := _INNER_LABEL.search(text, position):
        # The pattern finds the leftmost start; the label may be only the end of it: "Dr. Whitlock says. Juno: Hi."
        candidate = _longest_known_ending(match["label"], is_known)
        position = match.end()
        if candidate is None:
            continue
        start = match.start() if candidate == match["label"] else match.end("label") - len(candidate)
        yield label, text[begin:start]
        label, begin = candidate.strip(), match.end()
    yield label, text[begin:]


def _longest_known_ending(text: str, is_known: Callable[[str], bool]) -> str | None:
    starts = [0, *(match.end() for match in re.finditer(r"[.\"'\u201d\u2019)\]]\s+", text))]
    return next((text[start:] for start in starts if text[start:].strip() and is_known(text[start:].strip())), None)
