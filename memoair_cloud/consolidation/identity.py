"""Who the caller is and where he is reached: name, numbers, addresses, birthday, home, work."""

import re
from collections.abc import Iterator

from memoair_cloud.consolidation.date_expressions import day_words, yearly_day_in
from memoair_cloud.consolidation.records import Fact, FactKind
from memoair_cloud.consolidation.rule_api import Statement, fact
from memoair_cloud.consolidation.words import key, name_in

_MY_NAME = re.compile(r"\b(?:my (?:full )?name is|my name's)\s+", re.IGNORECASE)
_SPEAKING = re.compile(r"^(?:it's|it is|this is|you're speaking (?:to|with)|i'm|i am)\s+", re.IGNORECASE)
_SPEAKING_END = re.compile(r"^(?:\s*$|\s*,|\s+(?:speaking|here|again|calling|from)\b)", re.IGNORECASE)
_NAME_HERE = re.compile(r" (?:here|speaking)(?: again)?$")
_ASKED_NAME = re.compile(
    r"\b(?:your (?:full |first |last )?name|who am i (?:speaking|talking) (?:with|to)|who is (?:this|calling"
    r"|speaking)|who's (?:this|calling|speaking))\b"
    r"[^?]*\?\s*$",
    re.IGNORECASE,
)
_ASKED_OTHER = re.compile(r"\bname of\b|\bhis name|\bher name", re.IGNORECASE)
_CALL_ME = re.compile(r"\b(?:please |just |you can |everyone |everybody )*(?:call|calls) me\s+", re.IGNORECASE)

_PHONE = re.compile(r"(?<![\w-])\+?\(?\d[\d ().-]{5,18}\d(?![\w-])")
_LABEL = r"(?P<label>home phone|work phone|mobile|cell|landline|home|work|office|phone|telephone|contact)"
_MY_PHONE = re.compile(
    rf"\b(?:my|our) (?:new |current |best )?(?:{_LABEL} )?(?:phone |telephone |contact )?(?:number|phone|mobile"
    rf"|cell|landline)?\b[^.,]{{0,14}}?(?:is|it's|:)\s*(?:now )?(?=[+(\d])"
    rf"|\b(?:you can )?(?:reach|call|ring|text) me (?:on|at|back on|back at)\s+(?=[+(\d])",
    re.IGNORECASE,
)
_ITS = re.compile(r"^(?:it's|it is|that's)\s+(?:now )?", re.IGNORECASE)
_ASKED_PHONE = re.compile(rf"\b(?:your|my) {_LABEL}\b", re.IGNORECASE)
_ASKED_NUMBER = re.compile(r"\b(?:phone|number)\b|\d{3}-?\d{4}", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_MY_MAIL = re.compile(
    r"\b(?:my|our) (?:new |current )?(?:e-?mail|mail)|\b(?:e-?mail|write to|reach) me\b", re.IGNORECASE
)
_ASKED_MAIL = re.compile(r"\be-?mail\b", re.IGNORECASE)
_ADDRESS = re.compile(
    r"\b(?:[Mm]y (?:new |home |current |postal )?address (?:is|is now)|(?:i"
    r"|we) (?:now )?live at)\s+(?P<at>\d+[\w ]*?(?: [A-Z][\w']+)+(?:, [A-Z0-9][\w' ]+)*)",
)
_BIRTHDAY = re.compile(r"\b(?:my birthday(?: is|'s)|i was born|my date of birth is)\b(?P<rest>.*)", re.IGNORECASE)
_BORN_IN = re.compile(r"\bI was born (?:and raised )?in (?P<place>[A-Z][\w'-]+(?:,? [A-Z][\w'-]+)*)")
_AGE = re.compile(
    r"\bi(?:'m| am) (?P<age>\d{2}|1\d\d)(?: years old)?$|\bi(?:'m| am) (?P<old>\d{1,3}) years old\b", re.IGNORECASE
)
_PLACE = r"(?P<place>[A-Z][\w'-]+(?:,? [A-Z][\w'-]+){0,3})"
_HOME = re.compile(
    rf"\b(?:I|We|i|we)(?: now| currently| still|'ve always)? live (?:(?:\w+ ){{0,3}})?in (?:downtown |central "
    rf"|north |south |east |west )?{_PLACE}"
)
_MOVED = re.compile(
    rf"\b(?:I|We|i|we)(?:'ve)?(?: just| recently)? (?:moved|relocated) (?:back |over "
    rf"|here )?(?:from [A-Z]\w+ )?to {_PLACE}"
)
_ORIGIN = re.compile(rf"\b(?:I|i)(?:'m| am) (?:originally )?from {_PLACE}")
_JOBS = (
    "accountant actor actress architect artist author baker barista builder butcher carer chef chemist cleaner"
    " consultant"
    " cook courier dancer dentist designer developer doctor driver electrician engineer farmer firefighter florist"
    " freelancer gardener hairdresser journalist lawyer librarian manager mechanic midwife musician nurse nutritionist"
    " painter paramedic pharmacist photographer physiotherapist pilot plumber postman professor programmer psychologist"
    " scientist secretary solicitor student surgeon surveyor teacher therapist translator vet veterinarian waiter"
    " waitress writer"
)
_TWO_WORD_JOBS = (
    *("bus driver", "civil engineer", "graphic designer", "police officer", "product manager", "project manager"),
    *("social worker", "software developer", "software engineer", "taxi driver", "yoga teacher"),
)
_JOB = "|".join((*_TWO_WORD_JOBS, *_JOBS.split()))
_WORK_AS = re.compile(
    rf"\bi(?:'m| am)(?: currently)? (?P<article>an?) (?P<job>(?:[a-z]+ )?(?:{_JOB}))(?= (?:at|in|by|from|for)\b|$|,)"
    rf"|\bi work(?: part[- ]time"
    rf"| full[- ]time)? as (?P<as_article>an?) (?P<as_job>(?:[a-z]+ ){{0,2}}[a-z]+?)(?= (?:at|in|for|and|on"
    rf"|with)\b|$|,)",
    re.IGNORECASE,
)
_EMPLOYER = re.compile(
    r"\b[Ii](?: currently)? work (?:at|for) (?:the )?(?P<at>[A-Z][\w&'-]+(?: (?:[A-Z&][\w&'-]*|of|and(?= [A-Z])))*)"
)
_RETIRED = re.compile(r"\bi(?:'m| am) (?:now )?retired\b", re.IGNORECASE)


def names(heard: Statement) -> Iterator[Fact]:
    """How the caller is called."""
    clause, turn = heard.clause, heard.turn
    told = _MY_NAME.search(clause)
    name = name_in(clause[told.end() :], is_cased=heard.is_cased) if told else None
    speaking = _SPEAKING.match(clause)
    if not name and speaking and heard.is_cased and turn.number < 2:
        found = name_in(clause[speaking.end() :])
        # "It's Ada Lovelace!" is no introduction of somebody whom the agent knows by another name.
        is_another = turn.caller and found and not set(found.casefold().split()) & set(turn.caller.casefold().split())
        if found and not is_another and _SPEAKING_END.match(clause[speaking.end() + len(found) :]):
            name = found
    if not name and heard.is_cased and turn.number < 2 and (here := _NAME_HERE.search(clause)):
        found = name_in(clause)
        name = found if found and len(found) == here.start() else None
    if not name and heard.asked and _ASKED_NAME.search(heard.asked) and not _ASKED_OTHER.search(heard.asked):
        found = name_in(clause, is_cased=True)
        name = found if found and len(found) == len(clause) else None
    if name:
        if set(name.casefold().split()) <= set(turn.caller.casefold().split()):
            name = turn.caller
        yield fact(turn, FactKind.IDENTITY, f"The caller's name is {name}", "name", name)
    nickname = _CALL_ME.search(clause)
    if nickname and (called := name_in(clause[nickname.end() :])):
        yield fact(turn, FactKind.PREFERENCE, f"{heard.who} likes to be called {called}", "called", called)


def reached(heard: Statement) -> Iterator[Fact]:
    """Numbers and addresses under which the caller is reached."""
    clause, turn = heard.clause, heard.turn
    if re.search(r"\b(?:not|isn't|was|old|used to|no longer)\b", clause, re.IGNORECASE):
        return
    phone = _PHONE.search(clause)
    if phone and 7 <= len(re.sub(r"\D", "", phone[0])) <= 15:
        label = None
        if mine := _MY_PHONE.search(clause):
            label = mine["label"] or "phone"
            label = re.search(r"mobile|cell|landline|home|work|office", mine[0], re.IGNORECASE) or label
            label = label if isinstance(label, str) else label[0]
        elif (not clause[: phone.start()].strip() or _ITS.match(clause)) and _ASKED_NUMBER.search(heard.asked):
            # "I have 555-0142", says the agent, of the mobile that the caller has just named.
            asked = _ASKED_PHONE.search(heard.asked) or _ASKED_PHONE.search(heard.said)
            label = asked["label"] if asked else "phone"
        if label:
            sort = {"cell": "mobile", "home phone": "home", "work phone": "work", "number": "phone"}.get(
                label.lower(), label.lower()
            )
            sort = "phone" if sort in ("telephone", "contact", "phone") else f"{sort} phone"
            number = phone[0].strip()
            yield fact(turn, FactKind.IDENTITY, f"{heard.whose} {sort} number is {number}", sort, number)
    mail = _MAIL.search(clause)
    if mail and (_MY_MAIL.search(clause) or (_ASKED_MAIL.search(heard.asked) and len(clause.split()) <= 4)):
        value = mail[0].lower().rstrip(".")
        yield fact(turn, FactKind.IDENTITY, f"{heard.whose} email address is {value}", "email", value)


def birthdays(heard: Statement) -> Iterator[Fact]:
    """Birthday, birthplace and age."""
    told = _BIRTHDAY.search(heard.clause)
    if told and (day := yearly_day_in(told["rest"])):
        yield fact(heard.turn, FactKind.IDENTITY, f"{heard.whose} birthday is {day}", "birthday", day)
    place = _BORN_IN.search(heard.clause)
    if place and not yearly_day_in(f"1 {place['place'].split()[0]}"):
        yield fact(
            heard.turn, FactKind.IDENTITY, f"{heard.who} was born in {place['place']}", "birthplace", place["place"]
        )
    aged = _AGE.search(heard.clause)
    if aged and not heard.clause[: aged.start()].lower().endswith(("like ", "as ")):
        age = aged["age"] or aged["old"]
        text = f"{heard.who} was {age} years old on {day_words(heard.today)}"
        yield fact(heard.turn, FactKind.IDENTITY, text, "age", age)


def homes(heard: Statement) -> Iterator[Fact]:
    """Where the caller lives and comes from."""
    clause, turn = heard.clause, heard.turn
    if address := _ADDRESS.search(clause):
        yield fact(turn, FactKind.IDENTITY, f"{heard.whose} address is {address['at']}", "address", address["at"])
    home = _HOME.search(clause) or _MOVED.search(clause)
    if home and (place := name_in(home["place"])):
        yield fact(turn, FactKind.IDENTITY, f"{heard.who} lives in {home['place']}", "home", place)
    origin = _ORIGIN.search(clause)
    if origin and name_in(origin["place"]) and not re.search(r"\bcalling\b", clause):
        yield fact(turn, FactKind.IDENTITY, f"{heard.who} is from {origin['place']}", "origin", origin["place"])


def work(heard: Statement) -> Iterator[Fact]:
    """What the caller does for a living, and for whom."""
    if job := _WORK_AS.search(heard.clause):
        what, article = (job["job"] or job["as_job"]), (job["article"] or job["as_article"]).lower()
        verb = "is" if job["job"] else "works as"
        yield fact(heard.turn, FactKind.IDENTITY, f"{heard.who} {verb} {article} {what}", "job", key(what))
    elif _RETIRED.search(heard.clause):
        yield fact(heard.turn, FactKind.IDENTITY, f"{heard.who} is retired", "job", "retired")
    if employer := _EMPLOYER.search(heard.clause):
        yield fact(heard.turn, FactKind.IDENTITY, f"{heard.who} works for {employer['at']}", "employer", employer["at"])


RULES = (names, reached, birthdays, homes, work)
