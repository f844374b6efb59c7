"""The caller's plans and past events: only with a date, or with a verb that leaves no doubt."""

import re
from collections.abc import Iterator

from memoair_cloud.consolidation.date_expressions import DateRange, find_date_range, find_time_expression
from memoair_cloud.consolidation.records import NO_VALUE, Fact, FactKind
from memoair_cloud.consolidation.rule_api import Statement, make_fact
from memoair_cloud.consolidation.words import is_self_contained, leading_object, normalize_key, to_third_person

_PLAN_VERBS = (
    "flying travelling traveling moving getting having seeing visiting starting meeting leaving driving taking"
    " going attending hosting running"
    " performing presenting graduating holding throwing launching staying competing joining returning"
    " celebrating hiking giving speaking"
).split()
_PLAN = re.compile(
    rf"^(?:i'm|i am|we're|we are) (?:also |actually |all |both |now )*(?P<what>(?:{'|'.join(_PLAN_VERBS)}|back at"
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
_LIFE_EVENT = re.compile(
    r"^(?:i'm|i am|we're|we are) (?P<what>getting married|expecting (?:a baby|our \w+ child|my \w+ child|twins)"
    r"|moving to (?-i:[A-Z]).*)$",
    re.IGNORECASE,
)
_EVENT = (
    r"(?:appointment|meeting|interview|surgery|operation|flight|exam|check-?up|hearing|reservation|viewing"
    r"|conference|wedding|competition|concert"
    r"|recital|performance|tournament|game|race|trip|party|scan|class|test|presentation|dinner|call|show|event"
    r"|fair|audition|workshop)"
)
_BOOKED = re.compile(
    rf"^(?:i have|i've got|we have|we've got|i've) (?P<what>(?:an?|my|our|another) (?:[\w'-]+ ){{0,4}}?{_EVENT}\b.*)$",
    re.IGNORECASE,
)
_SCHEDULED = re.compile(
    rf"^(?:my|our) (?P<what>(?:[\w'-]+ ){{0,3}}{_EVENT}) (?:is|'s)(?: now)?(?: booked| scheduled"
    rf"| set)?\s+(?P<rest>.*)$",
    re.IGNORECASE,
)
_CANCELED = re.compile(
    rf"^(?:i've |i have |we've |i )?(?:cancelled|canceled|called off) (?:my"
    rf"|our) (?P<what>(?:[\w'-]+ ){{0,3}}{_EVENT})\b",
    re.IGNORECASE,
)

_EVENT_VERBS = (
    "went visited bought adopted started joined got graduated moved finished lost had attended met took won"
    " broke quit sold ran sprained hurt"
    " fell completed signed celebrated hosted performed saw watched volunteered received opened launched"
    " retired became organized organised"
    " passed failed hiked travelled traveled flew drove camped participated competed made built read planted"
    " painted donated spent"
).split()
_DATED_EVENT = re.compile(
    rf"^(?:just |so |yesterday |today |recently |actually |finally )*(?:i|we)(?: just| recently| finally| also"
    rf"| actually)* (?P<what>(?:{'|'.join(_EVENT_VERBS)})\b.+)$",
    re.IGNORECASE,
)
_MILESTONE = re.compile(
    r"^(?:i|we)(?:'ve| have)?(?: just| recently| finally)+ (?P<what>(?:adopted|bought|started|joined|graduated"
    r"|lost|quit|retired|broke|got (?:engaged|married|divorced|promoted|laid off|fired|accepted))\b.*)$",
    re.IGNORECASE,
)
# These refer to the conversation, or are not actions.
_NOT_AN_ACTION = re.compile(
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
_MAX_WORDS = 18
# A second time, or one that could not be resolved: it is unclear which of them holds.
_UNRESOLVED_TIME = re.compile(
    r"\b(?:last|next|previous|following|ago|soon|later|earlier|every|each|always|sometimes|once|twice)\b"
    r"|\bfrom the \d|\bthe \d+(?:st|nd|rd|th)$",
    re.IGNORECASE,
)


def find_plans(statement: Statement) -> Iterator[Fact]:
    """Find what is going to happen."""
    clause = statement.clause
    dates = find_date_range(clause, statement.today, is_past=False)
    without_time = _remove_time(clause, dates)
    for pattern, verb in ((_PLAN, "is "), (_INTENT, "plans to "), (_BOOKED, "has ")):
        match = pattern.match(without_time)
        if match and dates and (what := _extract_action(match["what"])):
            yield _make_plan(statement, f"{statement.caller_name} {verb}{to_third_person(what)}", what, dates)
            return
    scheduled = _SCHEDULED.match(clause)
    if scheduled and dates and dates.start >= scheduled.start("rest"):
        yield _make_plan(statement, f"{statement.caller_possessive} {scheduled['what']} is", scheduled["what"], dates)
        return
    if canceled := _CANCELED.match(clause):
        text = f"{statement.caller_name} has cancelled their {canceled['what']}"
        yield make_fact(statement.turn, FactKind.PLAN, text, _plan_key(canceled["what"]), NO_VALUE)
        return
    for pattern in (_TRIP, _LIFE_EVENT):
        match = pattern.match(without_time)
        if match and (what := _extract_action(match["what"])):
            yield _make_plan(statement, f"{statement.caller_name} is {to_third_person(what)}", what, dates)
            return


def find_events(statement: Statement) -> Iterator[Fact]:
    """Find what has happened."""
    dates = find_date_range(statement.clause, statement.today, is_past=True)
    without_time = _remove_time(statement.clause, dates)
    match = _DATED_EVENT.match(without_time) if dates else _MILESTONE.match(without_time)
    if match and (what := _extract_action(match["what"])):
        recently = "" if dates else f" shortly before {_statement_day(statement)}"
        when = f" {dates.description}" if dates else recently
        value = dates.description if dates else "yes"
        yield make_fact(
            statement.turn,
            FactKind.EVENT,
            f"{statement.caller_name} {to_third_person(what)}{when}",
            f"event: {normalize_key(what)}",
            value,
            dates=dates,
            is_one_of_many=True,
        )


def _make_plan(statement: Statement, text: str, what: str, dates: DateRange | None) -> Fact:
    when, value = (f" {dates.description}", dates.description) if dates else ("", "planned")
    return make_fact(statement.turn, FactKind.PLAN, f"{text}{when}", _plan_key(what), value, dates=dates)


def _plan_key(what: str) -> str:
    plain = re.sub(r"^(?:my|our|an?|another|the)\s+", "", what.strip(), flags=re.IGNORECASE)
    return f"plan: {normalize_key(plain)}"


def _extract_action(what: str) -> str | None:
    """Return what was done, if it can be understood by itself."""
    if _NOT_AN_ACTION.match(what):
        return None
    head = re.split(
        r"[,;()]|\s(?:which|who|where|so|because|since|to be|and (?:i|need|have|want|am|was|were|is"
        r"|it))\b",
        what,
        maxsplit=1,
    )[0].strip(" ,.")
    # "The workshop and the speaker, Rachel, ...": what the speaker did is another statement.
    if len(head) < len(what):
        head = re.sub(r"\s+and (?:the|an?|my|our) \w+$", "", head, flags=re.IGNORECASE)
    head = re.sub(
        r"(?:\s+(?:and|or|with|the|a|to|at|in|on|of|for|from|by|my|just|only|about|again|too|as well|together"
        r"|coming up))+$",
        "",
        head,
    )
    if (
        not 2 <= len(head.split()) <= _MAX_WORDS
        or not is_self_contained(head)
        or _UNRESOLVED_TIME.search(head)
        or find_time_expression(head)
    ):
        return None
    return head if leading_object(" ".join(head.split()[:2]), may_be_definite=True) or len(head.split()) > 2 else None


def _remove_time(clause: str, dates: DateRange | None) -> str:
    """Return a clause without the time expression in it."""
    if not dates:
        return clause
    before = re.sub(r"\s+(?:just|about|around|only|back)$", "", clause[: dates.start].rstrip(" ,"))
    return re.sub(r"\s+", " ", f"{before} {clause[dates.end :].lstrip()}").strip(" ,")


def _statement_day(statement: Statement) -> str:
    return DateRange(0, 0, statement.today, statement.today).description.removeprefix("on ")


RULES = (find_plans, find_events)
