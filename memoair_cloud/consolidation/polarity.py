"""Tell what a negative clause denies: "I do not take warfarin any more" denies "I take warfarin"."""

import re

import attrs

# What says that it held before. Without it, a clause only denies.
_TAIL = re.compile(
    r",?\s+(?:any ?more|any longer|now|nowadays|these days|at the moment|currently|since \w+(?: \w+)?|after all)$",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(
    r"^(?P<before>(?:i|we|my|our) (?:[\w'-]+ ){0,4}?|(?:i|we) )"
    r"(?:(?P<longer>(?:am |is |are )?no longer|(?:am |is |are )?not any ?more)"
    r"|(?P<be>am|is|are|have|can|will) not|cannot|do not|do no longer) (?P<rest>.+)$",
    re.IGNORECASE,
)
_REVERSED = re.compile(
    r"^(?P<value>[^,]{2,60}?) (?:is|are) (?P<not>not|no longer) (?P<mine>(?:my|our) .+)$", re.IGNORECASE
)
_STOPPED = re.compile(
    r"^(?P<who>i|we)(?: have| had to)?(?: just| recently| now| finally| completely)* "
    r"(?:stopped|stop|quit|gave up|given up|give up|ceased|finished)(?: on| with)? (?P<doing>\w+ing) (?P<rest>.+)$",
    re.IGNORECASE,
)
_PERFECT = re.compile(
    r"^(?P<who>i|we) have not (?P<verb>been|lived|taken|worked|had|eaten|paid|used|needed) (?P<rest>.+?)"
    r"(?: (?:for|since|in) .+| any ?more| any longer| lately)$",
    re.IGNORECASE,
)
_PRESENT = {
    "been": "am",
    "lived": "live",
    "taken": "take",
    "worked": "work",
    "had": "have",
    "eaten": "eat",
    "paid": "pay",
}
_PRESENT |= {"used": "use", "needed": "need"}
# These do not change what is denied: "not really", "not actually".
_ADVERB = re.compile(r"\b(not|longer) (?:actually |really |even |truly |technically |strictly )+", re.IGNORECASE)
_USED_TO = re.compile(r"^(?P<who>i|we) used to (?P<verb>be|\w+) (?P<rest>.+)$", re.IGNORECASE)
_GERUNDS = {
    "being": "am",
    "taking": "take",
    "using": "use",
    "living": "live",
    "working": "work",
    "eating": "eat",
    "having": "have",
    "drinking": "drink",
    "paying": "pay",
    "speaking": "speak",
    "liking": "like",
    "injecting": "inject",
    "needing": "need",
}


@attrs.frozen
class Denial:
    """What a negative clause denies.

    Attributes:
        clause: The positive clause.
        held_before: Whether the clause says that it held before: "any more", "no longer", "stopped".
    """

    clause: str
    held_before: bool


def find_denied(clause: str) -> Denial | None:
    """Return what a clause denies; None if it is not negative."""
    clause = _ADVERB.sub(r"\1 ", clause)
    if match := _PERFECT.match(clause):
        return Denial(f"{match['who']} {_PRESENT[match['verb'].lower()]} {match['rest']}", held_before=True)
    tail = _TAIL.search(clause)
    bare = clause[: tail.start()] if tail else clause
    if match := _NEGATIVE.match(bare):
        before, rest = match["before"], match["rest"]
        who = before.split()[0].lower()
        auxiliary = match["be"]
        if match["longer"]:
            auxiliary = (
                match["longer"].split()[0] if match["longer"].split()[0].lower() in ("am", "is", "are") else None
            )
        elif not auxiliary and re.search(r"\bcannot\b", bare[: match.start("rest")], re.IGNORECASE):
            auxiliary = "can"
        positive = f"{before}{auxiliary + ' ' if auxiliary else ''}{rest}"
        return Denial(positive, bool(tail or match["longer"])) if who else None
    if match := _REVERSED.match(bare):
        return Denial(f"{match['mine']} is {match['value']}", bool(tail) or match["not"].lower() == "no longer")
    if (match := _STOPPED.match(bare)) and match["doing"].lower() in _GERUNDS:
        return Denial(f"{match['who']} {_GERUNDS[match['doing'].lower()]} {match['rest']}", held_before=True)
    if match := _USED_TO.match(bare):
        verb = "am" if match["verb"].lower() == "be" else match["verb"]
        return Denial(f"{match['who']} {verb} {match['rest']}", held_before=True)
    return None
