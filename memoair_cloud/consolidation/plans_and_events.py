"""What the caller is going to do, and what he did: only with a day, or with a verb that leaves no doubt."""

import re
from collections.abc import Iterator

from memoair_cloud.consolidation.date_expressions import DateRange, moment_in, names_a_time
from memoair_cloud.consolidation.records import NOTHING, Fact, FactKind
from memoair_cloud.consolidation.rule_api import Statement, fact
from memoair_cloud.consolidation.words import is_clear, key, object_in, third_person

_GOING = (
    "flying travelling traveling moving getting having seeing visiting starting meeting leaving driving taking"
    " going attending hosting running"
    " performing presenting graduating holding throwing launching staying competing joining returning"
    " celebrating hiking giving speaking"
).split()
_PLAN = re.compile(
    rf"^(?:i'm|i am|we're|we are) (?:also |actually |all |both |now )*(?P<what>(?:{'|'.join(_GOING)}|back at"
    rf"|at my|at the)\b.+)$",
    re.IGNORECASE,
)
_INTENT = re.compile(
    r"^(?:i'm|i am|we're|we are) (?:also |actually |currently |now )*(?:going to|planning to|gonna"
    r"|planning on) (?!(?:an?|the|my|our|need|be|have|try|say|ask|keep|use|look|check|stick|give|get"
    r"|think) )(?P<what>[a-z]+ .+)$",
    re.IGNORECASE,
)
_TRIP = re.compile(
    r"^(?:i'm|i am|we're|we are)(?: also| actually| currently| now)* (?P<what>planning (?:an? |my "
    r"|our )(?:\w+ ){0,3}?(?:trip|holiday|vacation|wedding|party|reunion|move)\b.*)$",
    re.IGNORECASE,
)
_MARRYING = re.compile(
    r"^(?:i'm|i am|we're|we are) (?P<what>getting married|expecting (?:a baby|our \w+ child|my \w+ child|twins)"
    r"|moving to (?-i:[A-Z]).*)$",
    re.IGNORECASE,
)
_THING = (
    r"(?:appointment|meeting|interview|surgery|operation|flight|exam|check-?up|hearing|reservation|viewing"
    r"|conference|wedding|competition|concert"
    r"|recital|performance|tournament|game|race|trip|party|scan|class|test|presentation|dinner|call|show|event"
    r"|fair|audition|workshop)"
)
_BOOKED = re.compile(
    rf"^(?:i have|i've got|we have|we've got|i've) (?P<what>(?:an?|my|our|another) (?:[\w'-]+ ){{0,4}}?{_THING}\b.*)$",
    re.IGNORECASE,
)
_ITS_DAY = re.compile(
    rf"^(?:my|our) (?P<what>(?:[\w'-]+ ){{0,3}}{_THING}) (?:is|'s)(?: now)?(?: booked| scheduled"
    rf"| set)?\s+(?P<rest>.*)$",
    re.IGNORECASE,
)
_OFF = re.compile(
    rf"^(?:i've |i have |we've |i )?(?:cancelled|canceled|called off) (?:my"
    rf"|our) (?P<what>(?:[\w'-]+ ){{0,3}}{_THING})\b",
    re.IGNORECASE,
)

_PAST = (
    "went visited bought adopted started joined got graduated moved finished lost had attended met took won"
    " broke quit sold ran sprained hurt"
    " fell completed signed celebrated hosted performed saw watched volunteered received opened launched"
    " retired became organized organised"
    " passed failed hiked travelled traveled flew drove camped participated competed made built read planted"
    " painted donated spent"
).split()
_DID = re.compile(
    rf"^(?:just |so |yesterday |today |recently |actually |finally )*(?:i|we)(?: just| recently| finally| also"
    rf"| actually)* (?P<what>(?:{'|'.join(_PAST)})\b.+)$",
    re.IGNORECASE,
)
_LANDMARK = re.compile(
    r"^(?:i|we)(?:'ve| have)?(?: just| recently| finally)+ (?P<what>(?:adopted|bought|started|joined|graduated"
    r"|lost|quit|retired|broke|got (?:engaged|married|divorced|promoted|laid off|fired|accepted))\b.*)$",
    re.IGNORECASE,
)
# These pieces stand for what was talked about, or are no doings.
_IDLE = re.compile(
    r"^(?:(?:got|had|having|getting) (?:a (?:lot|bit|question|feeling|blast|great|good|rough|hard|tough|bad|fun"
    r"|nice|chance|quick|few|hard time)|some|to|back|so|really|into|used)"
    r"|went (?:well|great|really|through|back|from|ok|okay|ahead|with|for it)|(?:taking|took) (?:a look|note"
    r"|your|care)|(?:seeing|saw) (?:that|how|what|your)"
    r"|made (?:sure|a (?:mistake|decision))|going (?:well|great|to (?!(?:an?|the|my|our) )|through|with|for it"
    r"|crazy|ok)|started (?:to|thinking|feeling)|having (?:trouble|issues|problems|doubts|fun)"
    r"|getting (?:better|older|into|ready|back|a|the|excited|used|worried|more)|became (?:more|so)"
    r"|fell (?:in love|asleep)|lost (?:track|my mind|it)|met (?:my goal)"
    r"|read (?:that|about)|got (?:it|this|that|the chance)|taking (?:the|a) break|running (?:late|out|low|on)"
    r"|leaving (?:it|that)|holding (?:up|on)|giving up|gave (?:it|up|me|us))\b",
    re.IGNORECASE,
)
_LONGEST = 18
# A second time, or one that was not understood: which of them holds?
_OTHER_TIME = re.compile(
    r"\b(?:last|next|previous|following|ago|soon|later|earlier|every|each|always|sometimes|once|twice)\b"
    r"|\bfrom the \d|\bthe \d+(?:st|nd|rd|th)$",
    re.IGNORECASE,
)


def plans(heard: Statement) -> Iterator[Fact]:
    """What is going to happen."""
    clause = heard.clause
    moment = moment_in(clause, heard.today, is_past=False)
    plain = _without(clause, moment)
    for pattern, verb in ((_PLAN, "is "), (_INTENT, "plans to "), (_BOOKED, "has ")):
        told = pattern.match(plain)
        if told and moment and (what := _told(told["what"])):
            yield _plan(heard, f"{heard.who} {verb}{third_person(what)}", what, moment)
            return
    its_day = _ITS_DAY.match(clause)
    if its_day and moment and moment.start >= its_day.start("rest"):
        yield _plan(heard, f"{heard.whose} {its_day['what']} is", its_day["what"], moment)
        return
    if off := _OFF.match(clause):
        text = f"{heard.who} has cancelled their {off['what']}"
        yield fact(heard.turn, FactKind.PLAN, text, _named(off["what"]), NOTHING)
        return
    for pattern in (_TRIP, _MARRYING):
        told = pattern.match(plain)
        if told and (what := _told(told["what"])):
            yield _plan(heard, f"{heard.who} is {third_person(what)}", what, moment)
            return


def events(heard: Statement) -> Iterator[Fact]:
    """What has happened."""
    moment = moment_in(heard.clause, heard.today, is_past=True)
    plain = _without(heard.clause, moment)
    told = _DID.match(plain) if moment else _LANDMARK.match(plain)
    if told and (what := _told(told["what"])):
        recently = "" if moment else f" shortly before {_said(heard)}"
        days = f" {moment.words}" if moment else recently
        value = moment.words if moment else "yes"
        yield fact(
            heard.turn,
            FactKind.EVENT,
            f"{heard.who} {third_person(what)}{days}",
            f"event: {key(what)}",
            value,
            moment=moment,
            is_one_of_many=True,
        )


def _plan(heard: Statement, text: str, what: str, moment: DateRange | None) -> Fact:
    days, value = (f" {moment.words}", moment.words) if moment else ("", "planned")
    return fact(heard.turn, FactKind.PLAN, f"{text}{days}", _named(what), value, moment=moment)


def _named(what: str) -> str:
    plain = re.sub(r"^(?:my|our|an?|another|the)\s+", "", what.strip(), flags=re.IGNORECASE)
    return f"plan: {key(plain)}"


def _told(what: str) -> str | None:
    """What was done, if it can be understood by itself."""
    if _IDLE.match(what):
        return None
    head = re.split(
        r"[,;()]|\s(?:which|who|where|so|because|since|to be|and (?:i|need|have|want|am|was|were|is"
        r"|it))\b",
        what,
        maxsplit=1,
    )[0].strip(" ,.")
    if len(head) < len(what):  # "the workshop and the speaker, Rachel, ...": the speaker did something of her own
        head = re.sub(r"\s+and (?:the|an?|my|our) \w+$", "", head, flags=re.IGNORECASE)
    head = re.sub(
        r"(?:\s+(?:and|or|with|the|a|to|at|in|on|of|for|from|by|my|just|only|about|again|too|as well|together"
        r"|coming up))+$",
        "",
        head,
    )
    if not 2 <= len(head.split()) <= _LONGEST or not is_clear(head) or _OTHER_TIME.search(head) or names_a_time(head):
        return None
    return head if object_in(" ".join(head.split()[:2]), may_be_definite=True) or len(head.split()) > 2 else None


def _without(clause: str, moment: DateRange | None) -> str:
    """A clause without the time it names."""
    if not moment:
        return clause
    before = re.sub(r"\s+(?:just|about|around|only|back)$", "", clause[: moment.start].rstrip(" ,"))
    return re.sub(r"\s+", " ", f"{before} {clause[moment.end :].lstrip()}").strip(" ,")


def _said(heard: Statement) -> str:
    return DateRange(0, 0, heard.today, heard.today).words.removeprefix("on ")


RULES = (plans, events)
