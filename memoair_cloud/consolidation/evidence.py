"""Keep a suggested fact only if the words of its turn support it, and nothing around them casts doubt on it."""

import re
from collections.abc import Sequence
from datetime import date
from enum import Enum

import attrs

from memoair_cloud.consolidation.answers import SuggestedFact
from memoair_cloud.consolidation.foreign_words import KIN, PRIVILEGE
from memoair_cloud.consolidation.language import load_language
from memoair_cloud.consolidation.plain_text import choose_text
from memoair_cloud.consolidation.quoting import SaidWords, content_words, has_quote, tokenize
from memoair_cloud.consolidation.records import AGENT_SUBJECT, CALLER_SUBJECT, DENIED, NO_VALUE, Fact, FactKind
from memoair_cloud.consolidation.speech_gates import HeardTurn, OpenClause, says_end
from memoair_cloud.consolidation.typed_values import fits_attribute

# Values that say how the attribute holds: then the attribute has the words that must have been said.
_HOLDS = frozenset({"yes", "true", "likes", "loves", "enjoys", "adores", "prefers"})
_HOLDS_NOT = frozenset({"dislikes", "hates", "detests", "avoids"})
_DOES_NOT_HOLD = frozenset({"no", "none", "false"})
_STRUCTURE = re.compile(
    r"^(?:plan|event|commitment)\b:?|\b(?:allergy to|allergic to|takes|is|has|liking of|likes|avoids|number of"
    r"|speaks|favou?rite|end of)\b"
)
_NEGATIONS = frozenset(
    "not no none never nothing without nobody doesn't don't can't cannot isn't avoids dislikes hates".split()
)
_DISLIKES = re.compile(r"\b(?:hate|dislike|detest|loathe|can't stand|cannot (?:stand|bear))\b", re.IGNORECASE)
# A statement of the caller begins with them. "There's a chance I'm ..." and "That I'm ... is nonsense" do not.
_OWN_HEAD = re.compile(
    r"^(?:(?:also|just|only|actually|both|yes|yeah|no|on|in|at|by|from|since|until|next|this|last|every"
    r"|for) (?!which\b|the time\b)[^,]{0,30}?,? ?)?"
    r"(?:i|we|my|our|mine|me)\b",
    re.IGNORECASE,
)
_ALSO_OWN = re.compile(
    r"^(?:(?:just )?(?:call|text|ring|email|phone|write|never call|please|do not|no (?:calls|texts))\b"
    r"|the name is\b|(?:everyone|everybody|people|friends|they|most people) calls? me\b|you (?:are"
    r"|were) (?:speaking|talking) (?:to|with)\b"
    r"|you (?:can|may) (?:call|reach|text|ring|phone|email)\b)|\b(?:here|speaking)$|^(?-i:(?:[Tt]his"
    r"|[Ii]t) is [A-Z])",
    re.IGNORECASE,
)
# What is stated in a part of the clause that hangs on another: "I have a hunch that I'm ...".
_EMBEDDED = re.compile(
    r"\S+ .*\b(?:that|when|if|how|why|someone|somebody|to) .*\b(?:i (?:am|have|live|take|like)|my \w+ is)\b"
    r"|.{12,}\b(?<!and )my name is\b",
    re.IGNORECASE,
)
_WAVERING = re.compile(
    r"\b(?:deny|refuse|hunch|vaguely|recall|chance|pretty sure|around|something like|ish|inclined|or whatever"
    r"|mostly|may well|half (?:remember|think|believe)|leaning|wanted|want to|thinking (?:of|about)|trying"
    r"|consider(?:ed|ing)?|except|goal|intend|planned|hope|used to think|as a child|nonsense|misunderstanding"
    r"|would like to (?:live|be|have))\b",
    re.IGNORECASE,
)
_PERSON = (
    r"(?:client|ex|guest|customer|patient|visitor|kid|twin|business partner|cleaner|tenant|lodger|wife|husband"
    r"|mother|mum|mom|father|dad"
    r"|sister|brother|son|daughter|child|children|family|parents|in-laws?)"
)
_JOINED = re.compile(r"^(?:both )?(?:my|our) [\w' -]{1,30}? and i\b", re.IGNORECASE)
_POSSESSED = re.compile(
    r"^(?:my|our) (?:[\w-]+ ){0,3}?(?!(?:name|number|e-?mail|address|birthday|phone)'s)[\w-]+'s\b", re.IGNORECASE
)
_RELATIVE = re.compile(r"\b(?:who|whose|which|he|she|his|her|they|their)\b", re.IGNORECASE)
# One of the caller's people does something: "My neighbour has a dog", "Our postman, Pete, lives in Hove".
_SOMEBODYS = re.compile(
    r"^(?:my|our) [^,]{1,40}?(?:, [^,]{1,30},)? (?:lives|works|takes|likes|loves|hates|speaks|eats|drinks|prefers|owns"
    r"|plays|(?:has|have) (?:got )?(?:an?|two|three|four|some|no)) ",
    re.IGNORECASE,
)
_MAX_ATTRIBUTE_WORDS = 8
_MIN_QUOTE_WORDS = 2


class Unsupported(str, Enum):
    """Why a suggested fact is dropped. The values are labels of metrics."""

    QUOTE = "quote"  # its turn does not have the quote, or the quote is too short to say anything
    CONTEXT = "context"  # it is of a turn that was only sent as context, and read with the turns before it
    GATED = "gated"  # a doubt, a question, a quotation, a machine, another speaker or an instruction
    SUBJECT = "subject"  # the clause is about another person
    POLARITY = "polarity"  # the clause denies what the fact affirms, or the reverse
    VALUE = "value"  # a word or a number of the value was not said
    TYPE = "type"  # no such value for this attribute: "mornings" is no allergen, an order number no phone
    PRIVILEGE = "privilege"  # a role or a right


@attrs.frozen
class Verdict:
    """What becomes of a suggested fact.

    Attributes:
        fact: The fact; None if it is dropped.
        denial: A fact that only closes others; None if the fact is not one.
        reason: Why it is dropped.
    """

    fact: Fact | None = None
    denial: Fact | None = None
    reason: Unsupported | None = None


def judge(suggested: SuggestedFact, heard: Sequence[HeardTurn], first: int = 0) -> Verdict:
    """Return what becomes of a suggested fact.

    Args:
        suggested: The fact.
        heard: All turns of the call.
        first: The position of the first turn that is not only context.
    """
    if any(map(PRIVILEGE.search, (suggested.value, suggested.attribute, suggested.quote))):
        return Verdict(reason=Unsupported.PRIVILEGE)
    position = _find_turn(suggested, heard)
    if position is None:
        return Verdict(reason=Unsupported.QUOTE)
    if position < first:
        return Verdict(reason=Unsupported.CONTEXT)
    turn = heard[position]
    clauses = turn.promises if suggested.kind is FactKind.COMMITMENT else turn.clauses
    today = turn.turn.said_at.date()
    quoted = SaidWords(suggested.quote, today)
    reasons = [
        _judge_clause(suggested, clause, quoted, today, turn) for clause in clauses if _overlaps(clause, quoted, today)
    ]
    for verdict in reasons:
        if verdict.reason is None:
            return verdict
    order = list(Unsupported)
    return max(
        reasons,
        key=lambda verdict: order.index(verdict.reason) if verdict.reason else -1,
        default=Verdict(reason=Unsupported.GATED),
    )


def _find_turn(suggested: SuggestedFact, heard: Sequence[HeardTurn]) -> int | None:
    """Return the position of the turn that has the quote: the one that is named, else the only one."""
    words = tokenize(suggested.quote)

    def is_quoted(turn: HeardTurn) -> bool:
        said = turn.answered if suggested.kind is FactKind.COMMITMENT else turn.said
        is_enough = len(words) >= _MIN_QUOTE_WORDS or said.split() == words or not said.isascii()
        return is_enough and has_quote(said, suggested.quote)

    if 0 <= suggested.turn < len(heard) and is_quoted(heard[suggested.turn]):
        return suggested.turn
    found = [position for position, turn in enumerate(heard) if is_quoted(turn)]
    return found[0] if len(found) == 1 else None


def _overlaps(clause: OpenClause, quoted: SaidWords, today: date) -> bool:
    said = SaidWords(clause.text, today)
    return any(not quoted.missing_words(word) for word in content_words(clause.text)) or not said.missing_words(
        quoted.text
    )


def _judge_clause(
    suggested: SuggestedFact, clause: OpenClause, quoted: SaidWords, today: date, turn: HeardTurn
) -> Verdict:
    said = SaidWords(clause.text, today)
    is_commitment = suggested.kind is FactKind.COMMITMENT
    if not is_commitment and not _is_own(clause, suggested.kind):
        return Verdict(reason=Unsupported.SUBJECT)
    suggested, is_end = _read_end(suggested)
    if not _has_polarity(suggested, clause, is_end=is_end):
        return Verdict(reason=Unsupported.POLARITY)
    if clause.is_english and not is_commitment and not is_end and _WAVERING.search(clause.text):
        return Verdict(reason=Unsupported.GATED)
    supported = suggested.value
    if is_end:
        supported = suggested.replaces or _key_words(suggested.attribute)
    elif supported.casefold() in _HOLDS | _HOLDS_NOT:
        supported = _key_words(suggested.attribute)
    if not all(words.has_words(supported) for words in (said, quoted)) or not said.has_numbers(suggested.attribute):
        return Verdict(reason=Unsupported.VALUE)
    if len(suggested.attribute.split()) > _MAX_ATTRIBUTE_WORDS:
        return Verdict(reason=Unsupported.TYPE)
    if not is_end and clause.is_english and not fits_attribute(suggested, clause, load_language().lists):
        return Verdict(reason=Unsupported.TYPE)
    fact = _make_fact(suggested, clause, said, turn)
    return _end(fact, suggested.replaces, has_ended=clause.has_ended) if is_end else Verdict(fact)


def _read_end(suggested: SuggestedFact) -> tuple[SuggestedFact, bool]:
    """Return a fact that ends others in one form, and whether it is such a fact."""
    value = suggested.value.casefold()
    if value.startswith("not ") and suggested.attribute.split(" ")[0] not in ("plan:", "not", "event:"):
        replaces = suggested.replaces or suggested.value[4:].strip()
        return attrs.evolve(suggested, value=NO_VALUE, replaces="" if replaces in _HOLDS else replaces), True
    if value == NO_VALUE or value in _DOES_NOT_HOLD:
        return attrs.evolve(suggested, value=NO_VALUE), True
    return suggested, False


def _end(fact: Fact, replaces: str, *, has_ended: bool) -> Verdict:
    """Return a fact that closes others. One that only denies closes what it denies, and is no fact by itself."""
    if not has_ended:
        denial = attrs.evolve(
            fact, value=f"{DENIED}{replaces}", corrects=replaces or None, text="", is_one_of_many=True
        )
        return Verdict(denial=denial)
    if replaces:
        return Verdict(attrs.evolve(fact, value=f"not {replaces}", corrects=replaces, is_one_of_many=True))
    return Verdict(attrs.evolve(fact, is_one_of_many=False))


def _has_polarity(suggested: SuggestedFact, clause: OpenClause, *, is_end: bool) -> bool:
    """Return whether clause and fact both affirm, or both deny."""
    if is_end:
        return clause.is_negative
    is_negative = not _NEGATIONS.isdisjoint(tokenize(f"{suggested.attribute} {suggested.value}"))
    if clause.is_negative and clause.is_answer and not is_negative:
        return False
    if clause.is_english and suggested.value.casefold() in _HOLDS and _DISLIKES.search(clause.text):
        return False
    is_of_end = suggested.kind is FactKind.EVENT and bool(says_end(suggested.attribute))
    return not clause.is_negative or is_of_end or (is_negative and not clause.is_answer)


def _is_own(clause: OpenClause, kind: FactKind) -> bool:
    """Return whether a clause is about the caller, or about their people if the fact is."""
    text = clause.text
    if not clause.is_english:
        return kind is FactKind.RELATION or not KIN.search(text)
    if _EMBEDDED.match(text) or (_SOMEBODYS.match(text) and not _JOINED.match(text)):
        return False
    if kind is not FactKind.RELATION and not _JOINED.match(text):
        kin = "|".join(sorted(map(re.escape, load_language().lists["KIN"]), key=len, reverse=True))
        is_of_kin = re.match(
            rf"(?:(?:only|just|not) )?(?:my|our) (?:[\w-]+ ){{0,2}}?(?:{kin}|{_PERSON})(?:s|-in-law)?\b",
            text,
            re.IGNORECASE,
        )
        if is_of_kin or _POSSESSED.match(text) or _RELATIVE.search(text):
            return bool(_ALSO_OWN.match(text))
        if (
            clause.is_answer
            and not _OWN_HEAD.match(text)
            and re.search(rf"\b(?:{kin}|{_PERSON})s?\b", text, re.IGNORECASE)
        ):
            return False
    is_owned = bool(_OWN_HEAD.match(text) or _ALSO_OWN.search(text) or _JOINED.match(text))
    return is_owned or (clause.is_answer and not re.match(r"(?:he|she|they|you)\b", text, re.IGNORECASE))


def _key_words(attribute: str) -> str:
    """Return what an attribute is about: "nuts" of "allergy to nuts"; all of it if it is about nothing else."""
    return _STRUCTURE.sub(" ", attribute.replace("_", " ")).strip() or attribute


def _make_fact(suggested: SuggestedFact, clause: OpenClause, said: SaidWords, heard: HeardTurn) -> Fact:
    turn = heard.turn
    holds_from, holds_until = _supported_days(suggested, clause, said)
    is_commitment = suggested.kind is FactKind.COMMITMENT
    corrects = suggested.replaces if has_quote(heard.said, suggested.replaces) else None
    return Fact(
        kind=suggested.kind,
        text=choose_text(suggested, said, turn),
        subject=AGENT_SUBJECT if is_commitment else CALLER_SUBJECT,
        attribute=suggested.attribute,
        value=suggested.value,
        event_id=turn.event_id,
        session_id=turn.session_id,
        number=turn.number,
        said_at=turn.said_at,
        holds_from=holds_from,
        holds_until=holds_until,
        is_one_of_many=suggested.is_one_of_many,
        corrects=None if is_commitment else corrects,
    )


def _supported_days(suggested: SuggestedFact, clause: OpenClause, said: SaidWords) -> tuple[date | None, date | None]:
    """Return the days of a fact as its clause names them; None where it names none."""
    given = suggested.holds_from, suggested.holds_until
    if given == (None, None):
        return given
    if clause.is_english:
        of_kind = {FactKind.EVENT: said.past, FactKind.PLAN: said.future, FactKind.COMMITMENT: said.future}
        ranges = [days for days in dict.fromkeys((said.future, said.past)) if days is not None]
        fitting = [days for days in ranges if days.first == given[0] or given[1] in (days.first, days.last)]
        chosen = of_kind.get(suggested.kind) or next(iter(fitting), ranges[0] if len(ranges) == 1 else None)
        if chosen is None:
            return None, None
        return chosen.first if given[0] else None, chosen.last if given[1] else None
    holds_from, holds_until = (day if day and said.has_numbers(str(day.day)) else None for day in given)
    return holds_from, holds_until
