"""The caller's people and animals."""

import re
from collections.abc import Iterator

from memoair_cloud.consolidation.records import NO_VALUE, Fact, FactKind
from memoair_cloud.consolidation.rule_api import Statement, make_fact
from memoair_cloud.consolidation.words import leading_name

# Relations with one person at a time. The others can have several, so that another name contradicts nothing.
_EXCLUSIVE_RELATIONS = frozenset("wife husband mother mum mom father dad fiance fiancee spouse landlord boss".split())
_PETS = frozenset(
    "dog cat puppy kitten pup parrot rabbit hamster horse pony tortoise turtle snake goldfish budgie".split()
)
_OTHER_RELATIONS = frozenset(
    "son daughter brother sister child baby kid twin nephew niece cousin uncle aunt friend neighbour neighbor"
    " partner boyfriend"
    " girlfriend grandson granddaughter grandmother grandfather grandma grandpa colleague coworker roommate"
    " flatmate doctor physiotherapist dentist"
    " stepson stepdaughter carer nurse".split()
)
# Words for the people and animals of a caller.
_KIN = "|".join(sorted(_EXCLUSIVE_RELATIONS | _PETS | _OTHER_RELATIONS, key=len, reverse=True))
_ADJECTIVES = r"(?:best |older |younger |elder |little |big |eldest |youngest |oldest |late |new |other |twin )*"
_CALLED = re.compile(
    rf"\b(?:my|our) (?P<lead>{_ADJECTIVES})(?P<kin>{_KIN})(?:,? (?:is|was)|'s) (?:called|named)\s+", re.IGNORECASE
)
_NAME_IS = re.compile(
    rf"\b(?:my|our) (?P<lead>{_ADJECTIVES})(?P<kin>{_KIN})(?:'s|s') name(?: is|'s)\s+|\bthe name of (?:my"
    rf"|our) (?P<of_lead>{_ADJECTIVES})(?P<of_kin>{_KIN}) is\s+",
    re.IGNORECASE,
)
_HAVE_NAMED = re.compile(
    rf"\b(?:i|we)(?: have|'ve got| got|'ve| have got| adopted| just adopted"
    rf"| just got) an? (?P<lead>(?:[\w-]+ ){{0,2}}?)(?P<kin>{_KIN}),? (?:called|named|whose name is)\s+",
    re.IGNORECASE,
)
_ADJACENT_NAME = re.compile(rf"\b(?P<my>[Mm]y|[Oo]ur) (?P<lead>{_ADJECTIVES})(?P<kin>{_KIN}),? (?=[A-Z][a-z])")
# "My wife Ann", "my son, Jo, ...": the words after a name must not make it part of another ("my dog Shelter Fund").
_ADJACENT_NAME_END = re.compile(
    r"^(?:\s*$|,|\s+(?:is|was|has|had|and|loves|likes|lives|works|will|just|who|got|started|does|came|in|at|to)\b)"
)
_HAVE = re.compile(
    rf"\b(?:i|we)(?: have|'ve got| have got) (?P<count>a|an|one|two|three|four|five|six) (?P<lead>(?:young "
    rf"|small |little |teenage |grown )?)(?P<kin>(?:{_KIN})s?|children|kids|puppies)(?=$|,| (?:and|at home|now)\b)",
    re.IGNORECASE,
)
_NO_MORE = re.compile(
    rf"\b(?:i|we) (?:don't|do not|no longer) have (?:a|an|the|any|my|our) (?P<kin>{_KIN})s?(?: any ?more"
    rf"| any longer| now)?$"
    rf"|\b(?:my|our) (?P<dead>{_KIN})(?: [A-Z]\w+)? (?:died|passed away)\b",
    re.IGNORECASE,
)
_MARRIED = re.compile(
    r"\bi(?:'m| am) (?:happily |now )?(?P<state>married|divorced|widowed|single"
    r"|engaged)(?: to (?P<to>[A-Z]\w+))?(?=$|,| (?:and|with|now)\b)",
    re.IGNORECASE,
)
_KIN_HOME = re.compile(
    rf"\b[Mm]y (?P<kin>{_ADJECTIVES}(?:{_KIN}))(?: (?P<name>[A-Z][a-z]+))? lives (?:\w+ )?in"
    rf" (?P<place>[A-Z][\w'-]+(?: [A-Z][\w'-]+)*)(?!\w)"
)
_ASKS_NAME = re.compile(
    rf"\byour (?P<lead>{_ADJECTIVES})(?P<kin>{_KIN})(?:'s|s') name\b|\b(?:what's|what is) (?:her|his|its"
    rf"|their) name\b|\bname of your (?P<of>{_KIN})\b",
    re.IGNORECASE,
)
_MENTIONED = re.compile(rf"\b(?:my|our) (?:{_ADJECTIVES})(?P<kin>{_KIN})\b", re.IGNORECASE)


def find_names(statement: Statement) -> Iterator[Fact]:
    """Find the names of the caller's people and animals."""
    clause = statement.clause
    for pattern in (_CALLED, _NAME_IS, _HAVE_NAMED):
        if match := pattern.search(clause):
            groups = match.groupdict()
            name = leading_name(clause[match.end() :], has_caps=statement.has_capitals)
            if name:
                yield _make_name_fact(statement, groups.get("kin") or groups["of_kin"], name)
    for match in _ADJACENT_NAME.finditer(clause):
        name = leading_name(clause[match.end() :])
        if name and _ADJACENT_NAME_END.match(clause[match.end() + len(name) :]):
            yield _make_name_fact(statement, match["kin"], name)


def find_answered_name(statement: Statement) -> Iterator[Fact]:
    """Find a name that answers the agent's question."""
    questions = list(_ASKS_NAME.finditer(statement.agent_before))
    if not questions or not statement.agent_before.rstrip().endswith("?"):
        return
    kin = questions[-1]["kin"] or questions[-1]["of"]
    if not kin:
        mentioned = _MENTIONED.findall(f"{statement.caller_before} {statement.agent_before}".replace("your ", "my "))
        kin = mentioned[-1] if len({relation.lower() for relation in mentioned}) == 1 else None
    name = leading_name(statement.clause)
    if kin and name and len(name) == len(statement.clause):
        yield _make_name_fact(statement, kin, name)


def find_relations(statement: Statement) -> Iterator[Fact]:
    """Find which people and animals the caller has, or no longer has."""
    clause, turn = statement.clause, statement.turn
    if lost := _NO_MORE.search(clause):
        kin = _canonical_relation(lost["kin"] or lost["dead"])
        is_change = re.search(r"no longer|any ?more|any longer| now$", lost[0], re.IGNORECASE)
        has_none = (
            f"{statement.caller_name} no longer has a {kin}" if is_change else f"{statement.caller_name} has no {kin}"
        )
        text = has_none if lost["kin"] else f"{statement.caller_possessive} {kin} has died"
        yield make_fact(turn, FactKind.RELATION, text, kin, NO_VALUE, is_one_of_many=True)
    elif have := _HAVE.search(clause):
        kin, count = have["kin"].lower(), have["count"].lower()
        yield make_fact(
            turn,
            FactKind.RELATION,
            f"{statement.caller_name} has {count} {have['lead'].lower()}{kin}",
            f"number of {kin.rstrip('s')}s",
            count,
        )
    if married := _MARRIED.search(clause):
        state = married["state"].lower()
        yield make_fact(turn, FactKind.RELATION, f"{statement.caller_name} is {state}", "marital status", state)
    if home := _KIN_HOME.search(clause):
        kin = home["kin"].lower()
        text = (
            f"{statement.caller_possessive} {kin}{' ' + home['name'] if home['name'] else ''} lives in {home['place']}"
        )
        yield make_fact(
            turn, FactKind.RELATION, text, "home", home["place"], subject=f"{kin} {home['name'] or ''}".strip()
        )


def _make_name_fact(statement: Statement, kin: str, name: str) -> Fact:
    kin = _canonical_relation(kin)
    text = f"{statement.caller_possessive} {kin} is called {name}"
    return make_fact(statement.turn, FactKind.RELATION, text, kin, name, is_one_of_many=kin not in _EXCLUSIVE_RELATIONS)


def _canonical_relation(kin: str) -> str:
    return {
        "mom": "mum",
        "mother": "mum",
        "father": "dad",
        "pup": "dog",
        "puppy": "dog",
        "kitten": "cat",
        "neighbor": "neighbour",
    }.get(kin.lower(), kin.lower())


RULES = (find_names, find_relations, find_answered_name)
