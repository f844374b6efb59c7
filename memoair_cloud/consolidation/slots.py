"""The types of slots of rules that are not lists of words: what they match, and whether a text reads as one."""

import re
from collections.abc import Callable, Mapping

import attrs

from memoair_cloud.consolidation.date_expressions import find_day_of_year, find_time_expression
from memoair_cloud.consolidation.names import is_name
from memoair_cloud.consolidation.records import CallTurn
from memoair_cloud.consolidation.spoken_forms import parse_small_number
from memoair_cloud.consolidation.words import is_self_contained, leading_object

_MAX_AGE, _ADULT_AGE = 120, 18
_MIN_PHONE_DIGITS, _MAX_PHONE_DIGITS = 7, 15
_MAX_ACTION_WORDS, _MAX_SHORT_ACTION_WORDS, _MAX_OCCUPATION_WORDS = 18, 4, 3


@attrs.frozen
class SlotContext:
    """What a slot's text is judged by, besides the text.

    Attributes:
        turn: The turn that it comes from.
        has_capitals: Whether the turn's text has capitals, so that a name can be recognized by them.
        lists: The lists of words of the language, in lower case, by name.
    """

    turn: CallTurn
    has_capitals: bool
    lists: Mapping[str, Mapping[str, str]]


# Returns the values that a text has as a slot of a type; empty if it does not fit.
Reader = Callable[[str, SlotContext], tuple[str, ...]]

_WORD = r"[^\W\d_][\w'\u2019.-]*"
_STREET_NUMBER = r"\d+ ?[a-zA-Z]?(?:[-/]\d+)?"
_ADDRESS = rf"{_STREET_NUMBER} (?-i:[A-Z\u00c0-\u00de])[\w'.-]*(?: [\w'.-]+){{0,4}}?(?:, (?-i:[A-Z0-9])[\w' ]*)*?"
# What a type matches. A slot is as short as the rest of its expression allows.
PATTERNS = {
    **dict.fromkeys(
        ("NAME", "CALLER_NAME", "ANSWERED_NAME", "INTRODUCED_NAME", "SPEAKING_NAME"), rf"{_WORD}(?: '?{_WORD}){{0,5}}?"
    ),
    "CAPITAL_NAME": r"(?-i:[A-Z\u00c0-\u00de])[\w'-]*(?: (?-i:[A-Z\u00c0-\u00de])[\w'-]*)?",
    "FIRST_NAME": r"(?-i: [A-Z\u00c0-\u00de])[\w'-]*",
    "NAMES": rf"{_WORD}(?:(?: and |, and |, ){_WORD}){{0,4}}?",
    "PLACE": rf"{_WORD}(?:,? {_WORD}){{0,4}}?",
    "COMPANY": r"[\w&'.-]+(?: [\w&'.-]+){0,5}?",
    "PHONE": r"\+?\(?\d[\d ().-]{4,20}\d",
    "EMAIL": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "ADDRESS": _ADDRESS,
    "STREET_ADDRESS": _ADDRESS,
    "DAY_OF_YEAR": r"[\w, -]{3,50}?",
    **dict.fromkeys(("AGE", "ADULT_AGE"), r"[\w-]+(?: [\w-]+)?"),
    "ARTICLE": "an?",
    "OCCUPATION": r"[a-z-]+(?: [a-z-]+){0,2}?",
    "COUNT": "an?|one|two|three|four|five|six|seven|eight",
    "KIN_SIZE": r"(?:(?:young|small|little|teenage|grown|grown-up|lovely) )?",
    "KIN_ADJECTIVES": (
        "(?:best |older |younger |elder |little |big |eldest |youngest |oldest |late |new |other |twin |beloved |old )*"
    ),
    "KIN_PHRASE": "<KIN_ADJECTIVES>(?:<KIN>)",
    "TWINS": "twins",
    "TO": r"(?:to (?!be\b|see\b|say\b|know\b|hear\b|think\b))?",
    **dict.fromkeys(("LIKED", "FAVORITE"), ".+?"),
    "FAVORITE_OF": r"[a-z]+(?: [a-z]+){0,2}?",
    "ALLERGENS": r"[a-z][\w' -]*(?:,? (?:and|or) [\w' -]+|, [\w' -]+)*?",
    "FOODS": "(?:<FOOD>)(?:(?:,? (?:or|and) |, )(?:<FOOD>))*",
    "FREE_OF": r"(?:gluten|lactose|dairy|sugar|nut)[- ]free",
    "CONTACT_TIME": (
        r"(?:(?:in|on|after|before|between|during|at) )?(?:the )?(?:mornings?|afternoons?|evenings?|weekdays|weekends"
        r"|lunchtime|lunch|work|office hours|(?:\w+ )?(?:o'clock|am|pm)|(?:one|two|three|four|five|six|seven|eight|nine"
        r"|ten|eleven|twelve|noon|half past \w+|\d{1,2}(?::\d\d)?(?: ?[ap]m)?))(?: (?:and|to) \w+)?"
    ),
    "WANT": (
        r"i(?: would)?(?: really| always| usually| much| generally)* (?:prefer|rather(?: have| speak| be)?"
        r"|like(?: to (?:be|speak|sit|have))?|want|take)"
    ),
}


def _read_name(text: str, context: SlotContext) -> tuple[str, ...]:
    return (text,) if is_name(text, context.lists, has_capitals=context.has_capitals) else ()


def _read_named(text: str, context: SlotContext) -> tuple[str, ...]:
    """Read a name behind words that leave no doubt that one follows."""
    if not is_name(text, context.lists, has_capitals=context.has_capitals, is_announced=True):
        return ()
    if not context.has_capitals and text.islower():
        text = text.title()
    known = context.turn.caller
    return (known if known and set(text.casefold().split()) <= set(known.casefold().split()) else text,)


def _read_introduced(text: str, context: SlotContext) -> tuple[str, ...]:
    """Read a name behind "it's": that of someone else if the caller is known by another."""
    known = context.turn.caller
    if not context.has_capitals or (known and not set(text.casefold().split()) & set(known.casefold().split())):
        return ()
    return _read_named(text, context) if _read_name(text, context) else ()


def _read_speaking(text: str, context: SlotContext) -> tuple[str, ...]:
    """Read a name in an introduction, of the caller who is known or of another person."""
    if not context.has_capitals or not _read_name(text, context):
        return ()
    return _read_named(text, context)


def _read_answered(text: str, context: SlotContext) -> tuple[str, ...]:
    is_plain = context.has_capitals and is_name(text, context.lists, has_capitals=True)
    return _read_named(text, context) if is_plain else ()


def _read_names(text: str, context: SlotContext) -> tuple[str, ...]:
    names = re.split(r",? and |, ", text)
    return tuple(names) if all(is_name(name, context.lists, has_capitals=True) for name in names) else ()


def _read_place(text: str, context: SlotContext) -> tuple[str, ...]:
    words = text.replace(",", "").split()
    is_place = all(
        word[0].isupper()
        or (word in ("of", "upon", "on", "am", "de", "la", "the") and n)
        or (word in context.lists.get("PLACE_PARTICLE", ()) and n)
        for n, word in enumerate(words)
    ) and (len(words) > 1 or words[0].casefold() not in context.lists["NOT_A_NAME"])
    return (text,) if is_place else ()


def _read_company(text: str, _context: SlotContext) -> tuple[str, ...]:
    words = text.split()
    fits = all(word[0].isupper() or word == "&" or (word in ("of", "and", "the") and n) for n, word in enumerate(words))
    return (text,) if fits and words[-1][0].isupper() else ()


def _read_phone(text: str, _context: SlotContext) -> tuple[str, ...]:
    return (text,) if _MIN_PHONE_DIGITS <= len(re.sub(r"\D", "", text)) <= _MAX_PHONE_DIGITS else ()


def _read_email(text: str, _context: SlotContext) -> tuple[str, ...]:
    return (text.lower().rstrip("."),)


def _read_street(text: str, context: SlotContext) -> tuple[str, ...]:
    words = re.findall(r"\w+", text.partition(",")[0].casefold())
    return (text,) if words[-1] in context.lists["STREET"] else ()


def _read_day(text: str, _context: SlotContext) -> tuple[str, ...]:
    day, named = find_day_of_year(text), find_time_expression(text)
    is_all = named is not None and len(named[0]) >= len(text.strip(" ,")) - len("on ")
    return (day,) if day and is_all else ()


def _read_age(text: str, _context: SlotContext) -> tuple[str, ...]:
    age = parse_small_number(text)
    return (str(age),) if age is not None and 0 < age <= _MAX_AGE else ()


def _read_adult_age(text: str, context: SlotContext) -> tuple[str, ...]:
    read = _read_age(text, context)
    return read if read and int(read[0]) >= _ADULT_AGE else ()


def _read_occupation(text: str, _context: SlotContext) -> tuple[str, ...]:
    return (text,) if len(text.split()) <= _MAX_OCCUPATION_WORDS and is_self_contained(text) else ()


def _read_liked(text: str, context: SlotContext) -> tuple[str, ...]:
    if re.search(r"\bany ?(?:more|longer)$", text, re.IGNORECASE) or text.casefold() in context.lists["CHANNEL"]:
        return ()
    what = leading_object(text, is_whole=True)
    if (
        not what
        or _PASSING_TOPIC.search(what)
        or re.match(r"(?:\w+ly|more|most|less|a lot|for)\b", what, re.IGNORECASE)
    ):
        return ()
    first = what.split()[0].casefold()
    if first in ("my", "our") and len(what.split()) > len("my coffee".split()):
        return ()  # "I like my coffee black"
    is_pastime = not first.endswith("ing") or first in context.lists["PASTIME"] or len(first) < len("being") + 1
    return (what,) if is_pastime else ()


# What is liked only in the moment: an offer, an idea, a part of the conversation.
_PASSING_TOPIC = re.compile(
    r"\b(?:idea|ideas|suggestions?|sound|look|photos?|pics?|pictures?|question|enthusiasm|energy|hearing|being"
    r"|seeing|having|getting|feeling|way|tips?|refund|service|help|advice|spirit|attitude|thinking|to|moments?|when"
    r"|memories|options?|queues?|hold|waiting|voice|calls?)\b",
    re.IGNORECASE,
)


def _read_favorite(text: str, _context: SlotContext) -> tuple[str, ...]:
    which = leading_object(text, may_be_definite=True)
    is_doubtful = re.match(r"(?:when|being|seeing|to|just|still|how|\w+ly|\w+ing|not|no)\b", text, re.IGNORECASE)
    return (which,) if which and not is_doubtful else ()


def _read_self_contained(text: str, _context: SlotContext) -> tuple[str, ...]:
    return (text.lower(),) if is_self_contained(text) else ()


def _read_allergens(text: str, context: SlotContext) -> tuple[str, ...]:
    """Read one allergen or several; none unless each of them reads as one."""
    allergens, adjectives = context.lists["ALLERGEN"], context.lists["ALLERGEN_ADJECTIVE"]
    found = []
    for item in re.split(r",? (?:and|or) |, ", text):
        plain = re.sub(r"^(?:the|that|to|both) ", "", item.strip().casefold())
        words = plain.split()
        is_known = plain in allergens or _MEDICINE_ENDING.fullmatch(plain) is not None
        for split in range(1, len(words)):
            is_known |= set(words[:split]) <= set(adjectives) and " ".join(words[split:]) in allergens
            is_known |= " ".join(words[:split]) in allergens and set(words[split:]) <= set(adjectives)
        # "Strapping tape", "birch pollen": the last word says what it is.
        is_known |= (
            len(words) == len("strapping tape".split()) and words[1] in allergens and _is_kind(words[0], context)
        )
        narrowed = re.match(r"(?P<what>[\w ]+?) (?:they|you|we|people|that is|which is) use", plain)
        if not is_known and not (narrowed and narrowed["what"] in allergens):
            return ()
        found.append(plain)
    return tuple(found)


def _read_known_allergens(text: str, context: SlotContext) -> tuple[str, ...]:
    """Read one allergen or several, all of them in the list, as what the list says."""
    allergens = context.lists["ALLERGEN"]
    alternatives = "|".join(sorted(map(re.escape, allergens), key=len, reverse=True))
    return tuple(allergens[word] for word in re.findall(rf"\b(?:{alternatives})\b", text.casefold()))


def _is_kind(word: str, context: SlotContext) -> bool:
    """Return whether a word narrows down what something is, and is no opinion about it: "bad coffee"."""
    return word.isalpha() and word not in context.lists["OPINION"]


_MEDICINE_ENDING = re.compile(
    r"[a-z]+(?:cillin|mycin|cycline|floxacin|statin|profen|azole|caine|codone|sulfa|cef\w*)s?"
)


def _read_foods(text: str, _context: SlotContext) -> tuple[str, ...]:
    return tuple(re.split(r",? (?:or|and) |, ", text.lower()))


def _read_free_of(text: str, _context: SlotContext) -> tuple[str, ...]:
    return (re.split("[- ]", text)[0].lower(),)


def _read_text(text: str, _context: SlotContext) -> tuple[str, ...]:
    return (text,)


def _read_lower(text: str, _context: SlotContext) -> tuple[str, ...]:
    return (re.sub(r"\s+", " ", text.strip().lower()),)


# These refer to the conversation, or are not actions.
_NOT_AN_ACTION = re.compile(
    r"^(?:(?:got|had|having|getting) (?:a (?:lot|bit|question|feeling|blast|great|good|rough|hard|tough|bad|fun"
    r"|nice|chance|quick|few|hard time)|some|to|back|so|really|into|used)"
    r"|went (?:well|great|really|through|back|from|ok|okay|ahead|with|for it)|(?:taking|took) (?:a look|note"
    r"|your|care)|(?:seeing|saw) (?:that|how|what|your)"
    r"|made (?:sure|a (?:mistake|decision))|going (?:well|great|to (?!(?:an?|the|my|our) |(?-i:[A-Z]))|through"
    r"|with|for it|crazy|ok)|started (?:to|thinking|feeling)|having (?:trouble|issues|problems|doubts|fun)"
    r"|getting (?:better|older|into|ready|back|a|the|excited|used|worried|more)|became (?:more|so)"
    r"|fell (?:in love|asleep)|lost (?:track|my mind|it)|met (?:my goal)"
    r"|read (?:that|about)|got (?:it|this|that|the chance)|taking (?:the|a) break|running (?:late|out|low|on)"
    r"|leaving (?:it|that)|holding (?:up|on)|giving up|gave (?:it|up|me|us))\b",
    re.IGNORECASE,
)
# A second time, or one that could not be resolved: it is unclear which of them holds.
_UNRESOLVED_TIME = re.compile(
    r"\b(?:last|next|previous|following|ago|soon|later|earlier|every|each|always|sometimes|once|twice)\b"
    r"|\bfrom the \d|\bthe \d+(?:st|nd|rd|th)$",
    re.IGNORECASE,
)


def _read_action(text: str, _context: SlotContext) -> tuple[str, ...]:
    """Read what a person does, up to the next thought, if it can be understood by itself."""
    if _NOT_AN_ACTION.match(text):
        return ()
    head = re.split(
        r"[,;()]|\s(?:which|who|where|so|because|since|to be|and (?:i|need|have|want|am|was|were|is|it))\b",
        text,
        maxsplit=1,
    )[0].strip(" ,.")
    # "The workshop and the speaker, Rachel, ...": what the speaker did is another statement.
    if len(head) < len(text):
        head = re.sub(r"\s+and (?:the|an?|my|our) \w+$", "", head, flags=re.IGNORECASE)
    head = re.sub(
        r"(?:\s+(?:and|or|with|the|a|to|at|in|on|of|for|from|by|my|just|only|about|again|too|as well|together"
        r"|coming up))+$",
        "",
        head,
    )
    if (
        not 2 <= len(head.split()) <= _MAX_ACTION_WORDS
        or not is_self_contained(head)
        or _UNRESOLVED_TIME.search(head)
        or find_time_expression(head)
    ):
        return ()
    is_clear = len(head.split()) > 2 or leading_object(" ".join(head.split()[:2]), may_be_definite=True)
    return (head,) if is_clear else ()


def _read_place_action(text: str, context: SlotContext) -> tuple[str, ...]:
    """Read where a person will be: "in Rome", "abroad"."""
    preposition, _, place = text.partition(" ")
    if place and preposition.lower() in ("in", "at", "back"):
        place = re.sub(r"^in ", "", place)
        return (text,) if _read_place(place, context) or re.match(r"my\b", place) else ()
    return _read_short_action(text, context)


def _read_short_action(text: str, _context: SlotContext) -> tuple[str, ...]:
    head = re.split(r"\s(?:at|on|in|for|with|and)\b|,", text)[0].strip()
    is_clear = head and len(head.split()) <= _MAX_SHORT_ACTION_WORDS and is_self_contained(head)
    return (head,) if is_clear else ()


READERS: dict[str, Reader] = {
    **dict.fromkeys(("NAME", "CAPITAL_NAME"), _read_name),
    "CALLER_NAME": _read_named,
    "INTRODUCED_NAME": _read_introduced,
    "SPEAKING_NAME": _read_speaking,
    "ANSWERED_NAME": _read_answered,
    "FIRST_NAME": _read_text,
    "KIN_PHRASE": _read_lower,
    "NAMES": _read_names,
    "PLACE": _read_place,
    "COMPANY": _read_company,
    "PHONE": _read_phone,
    "EMAIL": _read_email,
    "ADDRESS": _read_text,
    "STREET_ADDRESS": _read_street,
    "DAY_OF_YEAR": _read_day,
    "AGE": _read_age,
    "ADULT_AGE": _read_adult_age,
    "ARTICLE": _read_lower,
    "OCCUPATION": _read_occupation,
    "COUNT": _read_lower,
    "KIN_SIZE": _read_text,
    "TWINS": _read_lower,
    "TO": _read_text,
    "LIKED": _read_liked,
    "FAVORITE": _read_favorite,
    "FAVORITE_OF": _read_self_contained,
    "ALLERGENS": _read_allergens,
    "KNOWN_ALLERGENS": _read_known_allergens,
    "FOODS": _read_foods,
    "FREE_OF": _read_free_of,
    "CONTACT_TIME": _read_lower,
    "ACTION": _read_action,
    "SHORT_ACTION": _read_short_action,
    "TEXT": _read_text,
    "PLACE_ACTION": _read_place_action,
}
