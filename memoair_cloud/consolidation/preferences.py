"""The caller's likes and dislikes, their health, and how they want to be contacted."""

import re
from collections.abc import Iterator

from memoair_cloud.consolidation.records import Fact, FactKind
from memoair_cloud.consolidation.rule_api import Statement, make_fact
from memoair_cloud.consolidation.words import is_self_contained, leading_object, normalize_key, to_third_person

_SUBJECT = r"^(?:i|we)"
_LIKE = re.compile(
    rf"{_SUBJECT} (?:really |absolutely |also |do |just |always |truly |totally |generally |usually )*(?P<verb>love"
    rf"|like|enjoy|adore|prefer|hate|dislike|detest"
    r"|can't stand|cannot stand|don't like|do not like|don't enjoy|can't bear)\s+(?:to (?!be\b|see\b|say\b"
    r"|know\b|hear\b|think\b))?(?P<what>.+)$",
    re.IGNORECASE,
)
_THIRD_PERSON_VERBS = {
    "love": "loves",
    "like": "likes",
    "enjoy": "enjoys",
    "adore": "adores",
    "prefer": "prefers",
    "hate": "hates",
}
_THIRD_PERSON_VERBS |= {
    "dislike": "dislikes",
    "detest": "detests",
    "can't stand": "can't stand",
    "cannot stand": "can't stand",
}
_THIRD_PERSON_VERBS |= {
    "don't like": "doesn't like",
    "do not like": "doesn't like",
    "don't enjoy": "doesn't enjoy",
    "can't bear": "can't bear",
}
_POSITIVE_VERBS = frozenset({"love", "like", "enjoy", "adore", "prefer"})
# What is liked only in the moment: an offer, an idea, a part of the conversation.
_PASSING_TOPIC = re.compile(
    r"\b(?:idea|ideas|suggestions?|sound|look|photos?|pics?|pictures?|question|enthusiasm|energy|hearing|being"
    r"|seeing|having|getting|feeling|way|tips?"
    r"|help|advice|spirit|attitude|thinking|to|moments?|when|memories|options?)\b",
    re.IGNORECASE,
)
_FAVORITE = re.compile(
    r"^my (?:all[- ]time |absolute )?favou?rite (?P<what>[a-z]+(?: [a-z]+){0,2}?)(?: of all time)?(?: is|'s"
    r"| are)(?: definitely| probably| still)?\s+(?P<which>.+)$",
    re.IGNORECASE,
)
_NOT_A_FAVORITE = re.compile(r"(?:when|being|seeing|to|just|still|how|\w+ly)\b", re.IGNORECASE)
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
_MEDICATION = re.compile(
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


def find_likes(statement: Statement) -> Iterator[Fact]:
    """Find likes and dislikes, and favorites."""
    liked = _LIKE.match(statement.clause)
    if liked and (what := leading_object(liked["what"], is_whole=True)) and not _PASSING_TOPIC.search(what):
        verb = liked["verb"].lower()
        if re.match(r"(?:\w+ly|more|most|less|a lot|for)\b", what, re.IGNORECASE):
            return
        is_infinitive = re.search(r"\sto\s+$", statement.clause[: liked.start("what")])
        predicate = f"{_THIRD_PERSON_VERBS[verb]} {'to ' if is_infinitive else ''}{to_third_person(what)}"
        yield make_fact(
            statement.turn,
            FactKind.PREFERENCE,
            f"{statement.caller_name} {predicate}",
            f"liking of {normalize_key(what)}",
            "likes" if verb in _POSITIVE_VERBS else "dislikes",
        )
    favorite = _FAVORITE.match(statement.clause)
    if (
        favorite
        and (which := leading_object(favorite["which"], may_be_definite=True))
        and is_self_contained(favorite["what"])
        and not _NOT_A_FAVORITE.match(which)
    ):
        what = favorite["what"].lower()
        yield make_fact(
            statement.turn,
            FactKind.PREFERENCE,
            f"{statement.caller_possessive} favourite {what} is {to_third_person(which)}",
            f"favourite {what}",
            which,
        )


def find_health(statement: Statement) -> Iterator[Fact]:
    """Find allergies, diets, and other facts that matter before offering food or medicine."""
    clause, turn = statement.clause, statement.turn
    no_longer = _NOT_ALLERGIC.search(clause)
    if no_longer:
        what = leading_object(no_longer["what"])
        if what:
            yield make_fact(
                turn,
                FactKind.PREFERENCE,
                f"{statement.caller_name} is not allergic to {what}",
                f"allergy to {normalize_key(what)}",
                "no",
            )
        return
    allergy = _ALLERGIC.search(clause) or _ALLERGY.search(clause)
    if allergy:
        # "Nuts and shellfish" are two allergies.
        for allergen in re.split(r",\s*(?:and\s+)?|\s+and\s+", allergy["what"]):
            if what := leading_object(allergen):
                yield make_fact(
                    turn,
                    FactKind.PREFERENCE,
                    f"{statement.caller_name} is allergic to {to_third_person(what)}",
                    f"allergy to {normalize_key(what)}",
                    "yes",
                )
    elif _ASKED_ALLERGY.search(statement.agent_before) and (
        answer := re.match(
            r"(?:just|only|yes,?|to)(?: to)?(?: the| that)?,? (?:the |that )?(?P<what>[a-z].*)", clause, re.IGNORECASE
        )
    ):
        what = re.sub(r"^(?:the|that)[, ]+", "", answer["what"]).strip(" ,")
        if 1 <= len(what.split()) <= 8 and not re.search(
            r"\b(?:no|not|none|nothing|i|me|you|don't)\b", what, re.IGNORECASE
        ):
            yield make_fact(
                turn,
                FactKind.PREFERENCE,
                f"{statement.caller_name} is allergic to {what}",
                f"allergy to {normalize_key(what)}",
                "yes",
            )
    for pattern, verb in ((_INTOLERANT, "is"), (_MEDICATION, "takes"), (_DIET, "is")):
        if found := pattern.search(clause):
            what = found["what"].lower()
            yield make_fact(
                turn, FactKind.PREFERENCE, f"{statement.caller_name} {verb} {what}", f"{verb} {what}", "yes"
            )


def find_contact_preferences(statement: Statement) -> Iterator[Fact]:
    """Find preferences for seat, language, time and channel of contact, and payment."""
    clause, turn, name = statement.clause, statement.turn, statement.caller_name
    if re.search(r"\b(?:rather|prefer|like|to) not\b|\bnever\b(?! (?:call|ring|phone|contact))", clause, re.IGNORECASE):
        return  # rejecting one option does not say which one is wanted
    if seat := _SEAT.search(clause):
        value = seat["seat"].lower()
        yield make_fact(
            turn, FactKind.PREFERENCE, f"{name} prefers {'an' if value[0] == 'a' else 'a'} {value} seat", "seat", value
        )
    if language := (_LANGUAGE.search(clause) or _MOTHER_TONGUE.search(clause)):
        value = language["language"].capitalize()
        yield make_fact(turn, FactKind.PREFERENCE, f"{name} prefers to speak {value}", "language", value)
    elif speaks := _SPEAKS.search(clause):
        value = speaks["language"].capitalize()
        yield make_fact(turn, FactKind.PREFERENCE, f"{name} speaks {value}", f"speaks {value}", "yes")
    if contact_time := _CONTACT_TIME.search(clause):
        is_never = re.search(r"\b(?:don't|do not|never)\b", contact_time["how"], re.IGNORECASE)
        wants = "does not want" if is_never else "wants"
        yield make_fact(
            turn,
            FactKind.PREFERENCE,
            f"{name} {wants} to be called {contact_time['when']}",
            "not to be called" if is_never else "time to be called",
            normalize_key(contact_time["when"]),
        )
    if (channel := _CHANNEL.search(clause)) and channel["channel"]:
        yield _make_channel_fact(statement, channel["channel"])
    if pay := _PAY.search(clause):
        value = to_third_person(pay["pay"].lower())
        yield make_fact(turn, FactKind.PREFERENCE, f"{name} prefers to pay by {value}", "payment", value)
    offered, choice = _OFFERED.search(statement.agent_before), _CHOICE.match(clause)
    if offered and choice and choice["choice"].lower() in {offered["one"].lower(), offered["other"].lower()}:
        value = choice["choice"].lower()
        if value in ("window", "aisle"):
            yield make_fact(
                turn,
                FactKind.PREFERENCE,
                f"{name} prefers {'an' if value[0] == 'a' else 'a'} {value} seat",
                "seat",
                value,
            )
        else:
            yield _make_channel_fact(statement, value)


def _make_channel_fact(statement: Statement, channel: str) -> Fact:
    value = re.sub(r"^phone | $", "", channel.lower()).rstrip("s").replace("-", "")
    article = "an" if value[0] == "e" else "a"
    return make_fact(
        statement.turn,
        FactKind.PREFERENCE,
        f"{statement.caller_name} prefers to be reached by {article} {value}".replace("by a whatsapp", "by whatsapp"),
        "channel",
        value,
    )


RULES = (find_likes, find_health, find_contact_preferences)
