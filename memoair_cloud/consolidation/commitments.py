"""Find what the agent promises the caller, or says it has done for them.

Nothing else that an agent says is learned, because it may only repeat what was recalled from memory.
"""

import re

from memoair_cloud.consolidation.date_expressions import find_date_range
from memoair_cloud.consolidation.records import AGENT_SUBJECT, CallTurn, Fact, FactKind
from memoair_cloud.consolidation.words import normalize_key

_FUTURE_VERBS = (
    "call ring phone email text send post book arrange ship refund remind transfer schedule cancel reserve"
    " order deliver collect replace"
    " credit forward upgrade waive mail extend"
).split()
_FUTURE_PHRASES = (
    r"get back to you|follow up with you|let you know|pick (?:up|you up)|drop off|pick you up|set aside|put you through"
)
_DONE_VERBS = (
    "booked scheduled reserved arranged sent cancelled canceled changed updated added ordered refunded upgraded"
    " extended noted registered"
    " credited waived transferred rescheduled moved"
).split()
_PROMISE = re.compile(
    rf"^(?P<who>i|we|the (?:courier|driver|engineer|technician|doctor|nurse|team|manager)|someone"
    rf"|a colleague)(?:'ll| will)(?: also| then)* (?P<what>(?:{'|'.join(_FUTURE_VERBS)}|{_FUTURE_PHRASES})\b.*)$",
    re.IGNORECASE,
)
_DONE_ACTION = re.compile(
    rf"^(?P<who>i|we)(?:'ve| have)(?: also| just| now)* (?P<what>(?:{'|'.join(_DONE_VERBS)}|put (?:down|a|an|the|you)"
    rf"|set up)\b.*)$",
    re.IGNORECASE,
)
_UNCERTAIN = re.compile(
    r"\b(?:if|unless|would|could|might|may|can|once you|whether|should|try|when you|as soon as)\b|\?\s*$|[\"\u201c]",
    re.IGNORECASE,
)
_CONTEXT_DEPENDENT = re.compile(
    r"\b(?:it|that|this|those|these|them|they|(?<!and )(?<!to )(?<!at )one|something|anything|some|her|him|same"
    r"|here|what)\b",
    re.IGNORECASE,
)
_CLAUSE_BOUNDARY = re.compile(
    r",?\s+(?:so|and|but|because)\s+(?=(?:i|i'll|i've|we|we'll|we've|you|it|it's|that|that's|the|please)\b)"
    r"|;\s+|\s-+\s",
    re.IGNORECASE,
)
_LEADING_FILLER = re.compile(
    r"^(?:(?:okay|ok|sure|thanks|thank you|of course|great|right|so|then|and|no problem|perfect|alright"
    r"|yes)\b[\s,!.]*(?:[A-Z][a-z]+, )?)+",
    re.IGNORECASE,
)
_PRONOUN_TEMPLATES = {
    "you": "{caller}",
    "your": "{caller}'s",
    "yours": "{caller}'s",
    "me": "{agent}",
    "my": "{agent}'s",
    "us": "{agent}",
    "our": "{agent}'s",
}
_PRONOUN = re.compile(
    r"\b(?:" + "|".join(sorted(_PRONOUN_TEMPLATES, key=len, reverse=True)) + r")\b(?!')", re.IGNORECASE
)
_MAX_WORDS = 24


def find_commitments(turn: CallTurn, sentences: tuple[str, ...]) -> list[Fact]:
    """Return the commitments in an agent's sentences."""
    facts = []
    for sentence in sentences:
        if _UNCERTAIN.search(sentence):
            continue
        for clause in _CLAUSE_BOUNDARY.split(sentence):
            statement = _LEADING_FILLER.sub("", clause).strip(" .,!")
            match = _PROMISE.match(statement) or _DONE_ACTION.match(statement)
            if match and (
                commitment := _make_commitment(
                    turn,
                    match["who"],
                    match["what"],
                    is_done="will" not in statement[: match.start("what")]
                    and "'ll" not in statement[: match.start("what")],
                )
            ):
                facts.append(commitment)
    return facts


def _make_commitment(turn: CallTurn, who: str, what: str, *, is_done: bool) -> Fact | None:
    if not 2 <= len(what.split()) <= _MAX_WORDS or _CONTEXT_DEPENDENT.search(what):
        return None
    caller, agent = turn.caller.split()[:1] or ["the caller"], turn.agent or "The agent"
    dates = find_date_range(what, turn.said_at.date(), is_past=False)
    action = f"{what[: dates.start].rstrip(' ,')} {what[dates.end :].strip(' ,')}".strip() if dates else what
    date_suffix = f" {dates.description}" if dates else ""
    actor = agent if who.lower() in ("i", "we") else f"{who[0].upper()}{who[1:]}"
    replacements = {word: form.format(caller=caller[0], agent=agent) for word, form in _PRONOUN_TEMPLATES.items()}
    predicate = _PRONOUN.sub(lambda match: replacements[match[0].lower()], action)
    value = dates.description if dates else "yes"
    text = f"{actor} {'has' if is_done else 'will'} {predicate}{date_suffix}"
    return Fact(
        kind=FactKind.COMMITMENT,
        text=f"{text.strip(' .,')}.",
        subject=AGENT_SUBJECT,
        attribute=f"commitment: {normalize_key(action)}",
        value=value,
        event_id=turn.event_id,
        session_id=turn.session_id,
        number=turn.number,
        said_at=turn.said_at,
        holds_from=dates.first if dates else None,
        holds_until=dates.last if dates else None,
    )
