"""What the caller likes, what he cannot bear, and how he wants things done."""

import re
from collections.abc import Iterator

from memoair_cloud.consolidation.records import Fact, FactKind
from memoair_cloud.consolidation.rule_api import Statement, fact
from memoair_cloud.consolidation.words import is_clear, key, object_in, third_person

_I = r"^(?:i|we)"
_LIKE = re.compile(
    rf"{_I} (?:really |absolutely |also |do |just |always |truly |totally |generally |usually )*(?P<verb>love"
    rf"|like|enjoy|adore|prefer|hate|dislike|detest"
    r"|can't stand|cannot stand|don't like|do not like|don't enjoy|can't bear)\s+(?:to (?!be\b|see\b|say\b"
    r"|know\b|hear\b|think\b))?(?P<what>.+)$",
    re.IGNORECASE,
)
_VERBS = {"love": "loves", "like": "likes", "enjoy": "enjoys", "adore": "adores", "prefer": "prefers", "hate": "hates"}
_VERBS |= {"dislike": "dislikes", "detest": "detests", "can't stand": "can't stand", "cannot stand": "can't stand"}
_VERBS |= {
    "don't like": "doesn't like",
    "do not like": "doesn't like",
    "don't enjoy": "doesn't enjoy",
    "can't bear": "can't bear",
}
_LIKED = frozenset({"love", "like", "enjoy", "adore", "prefer"})
# What is liked for this once: an offer, an idea, a moment of the talk.
_OF_THE_MOMENT = re.compile(
    r"\b(?:idea|ideas|suggestions?|sound|look|photos?|pics?|pictures?|question|enthusiasm|energy|hearing|being"
    r"|seeing|having|getting|feeling|way|tips?"
    r"|help|advice|spirit|attitude|thinking|to|moments?|when|memories|options?)\b",
    re.IGNORECASE,
)
_FAVOURITE = re.compile(
    r"^my (?:all[- ]time |absolute )?favou?rite (?P<what>[a-z]+(?: [a-z]+){0,2}?)(?: of all time)?(?: is|'s"
    r"| are)(?: definitely| probably| still)?\s+(?P<which>.+)$",
    re.IGNORECASE,
)
_NO_FAVOURITE = re.compile(r"(?:when|being|seeing|to|just|still|how|\w+ly)\b", re.IGNORECASE)
_ALLERGIC = re.compile(
    r"\bi(?:'m| am)(?: also| really| very| quite| badly| severely)* allergic to\s+(?P<what>.+)$", re.IGNORECASE
)
_ALLERGY = re.compile(
    r"\bi(?:'ve| have)(?: got)? an? (?:severe |bad |serious |slight )?(?P<what>[a-z]+(?: [a-z]+)?) allergy\b",
    re.IGNORECASE,
)
_NOT_ALLERGIC = re.compile(r"\bi(?:'m| am) (?:not|no longer) allergic to\s+(?P<what>.+)$", re.IGNORECASE)
_INTOLERANT = re.compile(
    r"\bi(?:'m| am) (?P<what>(?:lactose|gluten)[- ]intolerant|coeliac|celiac|diabetic|asthmatic)\b", re.IGNORECASE
)
_MEDICINE = re.compile(
    r"\bi(?:'m| am) on (?P<what>blood thinners|insulin|statins|antibiotics|beta blockers|warfarin|antidepressants)\b",
    re.IGNORECASE,
)
_DIET = re.compile(
    r"\bi(?:'m| am| eat)(?: a| an)?(?: strict)? (?P<what>vegetarian|vegan|pescatarian|halal|kosher|teetotal)\b(?! \w)",
    re.IGNORECASE,
)
_ASKED_ALLERGY = re.compile(r"\ballerg\w+[^.?]*\?\s*$", re.IGNORECASE)

_WANT = (
    r"\bi(?:'d| would)?(?: really| always| usually| much| generally)* (?:prefer|rather(?: have| speak| be)?"
    r"|like to (?:be|speak|sit)|want|take)\b"
)
_SEAT = re.compile(
    rf"(?:{_WANT}|^my preference is)[^,]*?\b(?P<seat>window|aisle|front row|back row) seats?\b", re.IGNORECASE
)
_LANGUAGES = (
    "English|German|French|Spanish|Italian|Dutch|Portuguese|Polish|Turkish|Arabic|Hindi|Mandarin|Japanese|Russian"
    "|Swedish|Korean|Greek|Welsh"
)
_LANGUAGE = re.compile(rf"{_WANT}[^,]*?\b(?:in )?(?P<language>{_LANGUAGES})\b(?! \w)", re.IGNORECASE)
_MOTHER_TONGUE = re.compile(
    rf"\bmy (?:first language|mother tongue|native language) is (?P<language>{_LANGUAGES})\b", re.IGNORECASE
)
_SPEAKS = re.compile(rf"^i(?: only| also)? speak (?:fluent )?(?P<language>{_LANGUAGES})\b(?! \w)", re.IGNORECASE)
_CONTACT_TIME = re.compile(
    r"\b(?P<how>(?:only |please |always |best to )*(?:call|ring|phone|reach|text|contact) me|(?:don't|do not"
    r"|never) (?:call|ring|phone|contact) me|the best time to (?:call|reach) me is)\s+"
    r"(?P<when>(?:(?:in|on|after|before|between|during|at) )?(?:the )?(?:mornings?|afternoons?|evenings?"
    r"|weekdays|weekends|lunchtime|lunch|work|office hours"
    r"|(?:\w+ )?(?:o'clock|am|pm)|(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|noon"
    r"|half past \w+|\d{1,2}(?::\d\d)?(?: ?[ap]m)?))(?: (?:and|to) \w+)?)$",
    re.IGNORECASE,
)
_CHANNEL = re.compile(
    rf"{_WANT} (?:to (?:be reached|get it) by |to get )?(?:an? )(?P<channel>text|call|e-?mail|phone call|letter)\b"
    r"(?: instead| rather)?$",
    re.IGNORECASE,
)
_PAY = re.compile(
    r"\bi(?:'d)?(?: always| usually| prefer to| like to| rather| only)+ pay (?:by|with|in|via"
    r"|on) (?P<pay>(?:my )?(?:credit card|debit card|card|cash|bank transfer|direct debit|invoice|paypal"
    r"|apple pay|cheque))\b",
    re.IGNORECASE,
)
_OFFERED = re.compile(
    r"\b(?:would you (?:like|prefer)|do you (?:prefer|want)|shall (?:i|we) send)\b[^?]*\b(?:an? )?(?P<one>text"
    r"|call|e-?mail|letter|window|aisle)\b or (?:an? )?(?P<other>text|call|e-?mail|letter|window|aisle)\b[^?]*\?\s*$",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"^(?:an?|the|by)?\s*(?P<choice>text|call|e-?mail|letter|window|aisle)\b(?: seat)?", re.IGNORECASE)


def likings(heard: Statement) -> Iterator[Fact]:
    """Likes and dislikes, and the favourite of a sort."""
    liked = _LIKE.match(heard.clause)
    if liked and (what := object_in(liked["what"], is_whole=True)) and not _OF_THE_MOMENT.search(what):
        verb = liked["verb"].lower()
        if re.match(r"(?:\w+ly|more|most|less|a lot|for)\b", what, re.IGNORECASE):
            return
        is_infinitive = re.search(r"\sto\s+$", heard.clause[: liked.start("what")])
        shown = f"{_VERBS[verb]} {'to ' if is_infinitive else ''}{third_person(what)}"
        yield fact(
            heard.turn,
            FactKind.PREFERENCE,
            f"{heard.who} {shown}",
            f"liking of {key(what)}",
            "likes" if verb in _LIKED else "dislikes",
        )
    favourite = _FAVOURITE.match(heard.clause)
    if (
        favourite
        and (which := object_in(favourite["which"], may_be_definite=True))
        and is_clear(favourite["what"])
        and not _NO_FAVOURITE.match(which)
    ):
        what = favourite["what"].lower()
        yield fact(
            heard.turn,
            FactKind.PREFERENCE,
            f"{heard.whose} favourite {what} is {third_person(which)}",
            f"favourite {what}",
            which,
        )


def bodily(heard: Statement) -> Iterator[Fact]:
    """Allergies, diets, and what else one must know before one gives somebody something."""
    clause, turn = heard.clause, heard.turn
    no_longer = _NOT_ALLERGIC.search(clause)
    if no_longer:
        what = object_in(no_longer["what"])
        if what:
            yield fact(
                turn, FactKind.PREFERENCE, f"{heard.who} is not allergic to {what}", f"allergy to {key(what)}", "no"
            )
        return
    told = _ALLERGIC.search(clause) or _ALLERGY.search(clause)
    if told:
        # "Nuts and shellfish" are two things one must not give somebody.
        for each in re.split(r",\s*(?:and\s+)?|\s+and\s+", told["what"]):
            if what := object_in(each):
                yield fact(
                    turn,
                    FactKind.PREFERENCE,
                    f"{heard.who} is allergic to {third_person(what)}",
                    f"allergy to {key(what)}",
                    "yes",
                )
    elif _ASKED_ALLERGY.search(heard.asked) and (
        just := re.match(
            r"(?:just|only|yes,?|to)(?: to)?(?: the| that)?,? (?:the |that )?(?P<what>[a-z].*)", clause, re.IGNORECASE
        )
    ):
        what = re.sub(r"^(?:the|that)[, ]+", "", just["what"]).strip(" ,")
        if 1 <= len(what.split()) <= 8 and not re.search(
            r"\b(?:no|not|none|nothing|i|me|you|don't)\b", what, re.IGNORECASE
        ):
            yield fact(
                turn, FactKind.PREFERENCE, f"{heard.who} is allergic to {what}", f"allergy to {key(what)}", "yes"
            )
    for pattern, verb in ((_INTOLERANT, "is"), (_MEDICINE, "takes"), (_DIET, "is")):
        if found := pattern.search(clause):
            what = found["what"].lower()
            yield fact(turn, FactKind.PREFERENCE, f"{heard.who} {verb} {what}", f"{verb} {what}", "yes")


def ways(heard: Statement) -> Iterator[Fact]:
    """Seat, language, when and how to be called, how to pay."""
    clause, turn, who = heard.clause, heard.turn, heard.who
    if re.search(r"\b(?:rather|prefer|like|to) not\b|\bnever\b(?! (?:call|ring|phone|contact))", clause, re.IGNORECASE):
        return  # what he would rather not have does not say what he wants
    if seat := _SEAT.search(clause):
        value = seat["seat"].lower()
        yield fact(
            turn, FactKind.PREFERENCE, f"{who} prefers {'an' if value[0] == 'a' else 'a'} {value} seat", "seat", value
        )
    if language := (_LANGUAGE.search(clause) or _MOTHER_TONGUE.search(clause)):
        value = language["language"].capitalize()
        yield fact(turn, FactKind.PREFERENCE, f"{who} prefers to speak {value}", "language", value)
    elif speaks := _SPEAKS.search(clause):
        value = speaks["language"].capitalize()
        yield fact(turn, FactKind.PREFERENCE, f"{who} speaks {value}", f"speaks {value}", "yes")
    if told := _CONTACT_TIME.search(clause):
        is_never = re.search(r"\b(?:don't|do not|never)\b", told["how"], re.IGNORECASE)
        wants = "does not want" if is_never else "wants"
        yield fact(
            turn,
            FactKind.PREFERENCE,
            f"{who} {wants} to be called {told['when']}",
            "not to be called" if is_never else "time to be called",
            key(told["when"]),
        )
    if (channel := _CHANNEL.search(clause)) and channel["channel"]:
        yield _by_channel(heard, channel["channel"])
    if pay := _PAY.search(clause):
        value = third_person(pay["pay"].lower())
        yield fact(turn, FactKind.PREFERENCE, f"{who} prefers to pay by {value}", "payment", value)
    offered, choice = _OFFERED.search(heard.asked), _CHOICE.match(clause)
    if offered and choice and choice["choice"].lower() in {offered["one"].lower(), offered["other"].lower()}:
        value = choice["choice"].lower()
        if value in ("window", "aisle"):
            yield fact(
                turn,
                FactKind.PREFERENCE,
                f"{who} prefers {'an' if value[0] == 'a' else 'a'} {value} seat",
                "seat",
                value,
            )
        else:
            yield _by_channel(heard, value)


def _by_channel(heard: Statement, channel: str) -> Fact:
    value = re.sub(r"^phone | $", "", channel.lower()).rstrip("s").replace("-", "")
    article = "an" if value[0] == "e" else "a"
    return fact(
        heard.turn,
        FactKind.PREFERENCE,
        f"{heard.who} prefers to be reached by {article} {value}".replace("by a whatsapp", "by whatsapp"),
        "channel",
        value,
    )


RULES = (likings, bodily, ways)
