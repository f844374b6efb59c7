"""Who the caller is and how to reach them: name, numbers, addresses, birthday, home, work."""

import re
from collections.abc import Iterator

from memoair_cloud.consolidation.date_expressions import find_day_of_year, format_day
from memoair_cloud.consolidation.records import Fact, FactKind
from memoair_cloud.consolidation.rule_api import Statement, make_fact
from memoair_cloud.consolidation.words import leading_name, normalize_key

_MY_NAME = re.compile(r"\b(?:my (?:full )?name is|my name's)\s+", re.IGNORECASE)
_INTRODUCTION = re.compile(r"^(?:it's|it is|this is|you're speaking (?:to|with)|i'm|i am)\s+", re.IGNORECASE)
_INTRODUCTION_END = re.compile(r"^(?:\s*$|\s*,|\s+(?:speaking|here|again|calling|from)\b)", re.IGNORECASE)
_SPEAKING_HERE = re.compile(r" (?:here|speaking)(?: again)?$")
_ASKS_NAME = re.compile(
    r"\b(?:your (?:full |first |last )?name|who am i (?:speaking|talking) (?:with|to)|who is (?:this|calling"
    r"|speaking)|who's (?:this|calling|speaking))\b"
    r"[^?]*\?\s*$",
    re.IGNORECASE,
)
_ASKS_OTHER_NAME = re.compile(r"\bname of\b|\bhis name|\bher name", re.IGNORECASE)
_CALL_ME = re.compile(r"\b(?:please |just |you can |everyone |everybody )*(?:call|calls) me\s+", re.IGNORECASE)

_PHONE = re.compile(r"(?<![\w-])\+?\(?\d[\d ().-]{5,18}\d(?![\w-])")
_LABEL = r"(?P<label>home phone|work phone|mobile|cell|landline|home|work|office|phone|telephone|contact)"
_MY_PHONE = re.compile(
    rf"\b(?:my|our) (?:new |current |best )?(?:{_LABEL} )?(?:phone |telephone |contact )?(?:number|phone|mobile"
    rf"|cell|landline)?\b[^.,]{{0,14}}?(?:is|it's|:)\s*(?:now )?(?=[+(\d])"
    rf"|\b(?:you can )?(?:reach|call|ring|text) me (?:on|at|back on|back at)\s+(?=[+(\d])",
    re.IGNORECASE,
)
_IT_IS = re.compile(r"^(?:it's|it is|that's)\s+(?:now )?", re.IGNORECASE)
_ASKS_PHONE_LABEL = re.compile(rf"\b(?:your|my) {_LABEL}\b", re.IGNORECASE)
_ASKS_NUMBER = re.compile(r"\b(?:phone|number)\b|\d{3}-?\d{4}", re.IGNORECASE)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_MY_EMAIL = re.compile(
    r"\b(?:my|our) (?:new |current )?(?:e-?mail|mail)|\b(?:e-?mail|write to|reach) me\b", re.IGNORECASE
)
_ASKS_EMAIL = re.compile(r"\be-?mail\b", re.IGNORECASE)
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


def find_name(statement: Statement) -> Iterator[Fact]:
    """Find the caller's name and what they want to be called."""
    clause, turn = statement.clause, statement.turn
    stated = _MY_NAME.search(clause)
    name = leading_name(clause[stated.end() :], has_caps=statement.has_capitals) if stated else None
    speaking = _INTRODUCTION.match(clause)
    if not name and speaking and statement.has_capitals and turn.number < 2:
        found = leading_name(clause[speaking.end() :])
        # "It's Ada Lovelace!" is not an introduction if the agent knows the caller by another name.
        is_someone_else = (
            turn.caller and found and not set(found.casefold().split()) & set(turn.caller.casefold().split())
        )
        if found and not is_someone_else and _INTRODUCTION_END.match(clause[speaking.end() + len(found) :]):
            name = found
    if not name and statement.has_capitals and turn.number < 2 and (here := _SPEAKING_HERE.search(clause)):
        found = leading_name(clause)
        name = found if found and len(found) == here.start() else None
    if (
        not name
        and statement.agent_before
        and _ASKS_NAME.search(statement.agent_before)
        and not _ASKS_OTHER_NAME.search(statement.agent_before)
    ):
        found = leading_name(clause, has_caps=True)
        name = found if found and len(found) == len(clause) else None
    if name:
        if set(name.casefold().split()) <= set(turn.caller.casefold().split()):
            name = turn.caller
        yield make_fact(turn, FactKind.IDENTITY, f"The caller's name is {name}", "name", name)
    nickname = _CALL_ME.search(clause)
    if nickname and (called := leading_name(clause[nickname.end() :])):
        yield make_fact(
            turn, FactKind.PREFERENCE, f"{statement.caller_name} likes to be called {called}", "called", called
        )


def find_contact_details(statement: Statement) -> Iterator[Fact]:
    """Find the caller's phone numbers and email address."""
    clause, turn = statement.clause, statement.turn
    if re.search(r"\b(?:not|isn't|was|old|used to|no longer)\b", clause, re.IGNORECASE):
        return
    phone = _PHONE.search(clause)
    if phone and 7 <= len(re.sub(r"\D", "", phone[0])) <= 15:
        label = None
        if mine := _MY_PHONE.search(clause):
            label = mine["label"] or "phone"
            label = re.search(r"mobile|cell|landline|home|work|office", mine[0], re.IGNORECASE) or label
            label = label if isinstance(label, str) else label[0]
        elif (not clause[: phone.start()].strip() or _IT_IS.match(clause)) and _ASKS_NUMBER.search(
            statement.agent_before
        ):
            # The agent says "I have 555-0142" after the caller has mentioned their mobile.
            asked = _ASKS_PHONE_LABEL.search(statement.agent_before) or _ASKS_PHONE_LABEL.search(
                statement.caller_before
            )
            label = asked["label"] if asked else "phone"
        if label:
            attribute = {"cell": "mobile", "home phone": "home", "work phone": "work", "number": "phone"}.get(
                label.lower(), label.lower()
            )
            attribute = "phone" if attribute in ("telephone", "contact", "phone") else f"{attribute} phone"
            number = phone[0].strip()
            yield make_fact(
                turn,
                FactKind.IDENTITY,
                f"{statement.caller_possessive} {attribute} number is {number}",
                attribute,
                number,
            )
    email = _EMAIL.search(clause)
    if email and (
        _MY_EMAIL.search(clause) or (_ASKS_EMAIL.search(statement.agent_before) and len(clause.split()) <= 4)
    ):
        value = email[0].lower().rstrip(".")
        yield make_fact(
            turn, FactKind.IDENTITY, f"{statement.caller_possessive} email address is {value}", "email", value
        )


def find_birth_and_age(statement: Statement) -> Iterator[Fact]:
    """Find birthday, birthplace and age."""
    birthday = _BIRTHDAY.search(statement.clause)
    if birthday and (day := find_day_of_year(birthday["rest"])):
        yield make_fact(
            statement.turn, FactKind.IDENTITY, f"{statement.caller_possessive} birthday is {day}", "birthday", day
        )
    place = _BORN_IN.search(statement.clause)
    if place and not find_day_of_year(f"1 {place['place'].split()[0]}"):
        yield make_fact(
            statement.turn,
            FactKind.IDENTITY,
            f"{statement.caller_name} was born in {place['place']}",
            "birthplace",
            place["place"],
        )
    match = _AGE.search(statement.clause)
    if match and not statement.clause[: match.start()].lower().endswith(("like ", "as ")):
        age = match["age"] or match["old"]
        text = f"{statement.caller_name} was {age} years old on {format_day(statement.today)}"
        yield make_fact(statement.turn, FactKind.IDENTITY, text, "age", age)


def find_home_and_origin(statement: Statement) -> Iterator[Fact]:
    """Find where the caller lives and comes from."""
    clause, turn = statement.clause, statement.turn
    if address := _ADDRESS.search(clause):
        yield make_fact(
            turn,
            FactKind.IDENTITY,
            f"{statement.caller_possessive} address is {address['at']}",
            "address",
            address["at"],
        )
    home = _HOME.search(clause) or _MOVED.search(clause)
    if home and (place := leading_name(home["place"])):
        yield make_fact(turn, FactKind.IDENTITY, f"{statement.caller_name} lives in {home['place']}", "home", place)
    origin = _ORIGIN.search(clause)
    if origin and leading_name(origin["place"]) and not re.search(r"\bcalling\b", clause):
        yield make_fact(
            turn, FactKind.IDENTITY, f"{statement.caller_name} is from {origin['place']}", "origin", origin["place"]
        )


def find_work(statement: Statement) -> Iterator[Fact]:
    """Find the caller's job and employer."""
    if job := _WORK_AS.search(statement.clause):
        what, article = (job["job"] or job["as_job"]), (job["article"] or job["as_article"]).lower()
        verb = "is" if job["job"] else "works as"
        yield make_fact(
            statement.turn,
            FactKind.IDENTITY,
            f"{statement.caller_name} {verb} {article} {what}",
            "job",
            normalize_key(what),
        )
    elif _RETIRED.search(statement.clause):
        yield make_fact(statement.turn, FactKind.IDENTITY, f"{statement.caller_name} is retired", "job", "retired")
    if employer := _EMPLOYER.search(statement.clause):
        yield make_fact(
            statement.turn,
            FactKind.IDENTITY,
            f"{statement.caller_name} works for {employer['at']}",
            "employer",
            employer["at"],
        )


RULES = (find_name, find_contact_details, find_birth_and_age, find_home_and_origin, find_work)
