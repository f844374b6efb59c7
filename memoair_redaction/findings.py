"""What a text contains of all kinds."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import attrs

from memoair_redaction.birth_dates import find_birth_dates
from memoair_redaction.cards import find_cards
from memoair_redaction.emails import find_emails, may_contain_email
from memoair_redaction.ibans import find_ibans
from memoair_redaction.phones import find_international_phones, find_phones
from memoair_redaction.security_codes import CARD_MASK, find_security_codes
from memoair_redaction.spoken_text import Span, write_digits

PLACEHOLDERS = {
    "iban": "[IBAN]",
    "card": "[card number]",
    "phone": "[phone number]",
    "email": "[e-mail address]",
    "birth_date": "[date of birth]",
    "security_code": "[security code]",
}
KINDS = tuple(PLACEHOLDERS)
# Mail addresses are left: an agent often has to repeat and use them.
DEFAULT_KINDS = ("iban", "card", "phone", "birth_date", "security_code")

# The order of the searches: the most certain kind first, since a long number may match several. Each sees the text
# without what was found before.
Search = Callable[[str], Iterator[Span]]
_SEARCHES: Sequence[tuple[str, Search]] = (
    ("email", find_emails),
    ("birth_date", find_birth_dates),
    ("iban", find_ibans),
    ("phone", find_international_phones),
    ("card", find_cards),
    ("security_code", find_security_codes),
)
_MASK = "\0"
_MASKS = {_MASK, CARD_MASK}


@attrs.frozen(order=True)
class RedactionSpan:
    """A part of a text that is of a kind.

    Attributes:
        begin: Where it begins in the text.
        end: Where it ends.
        kind: What it is, one of `KINDS`.
    """

    begin: int
    end: int
    kind: str


def find_all(text: str) -> list[RedactionSpan]:
    """Return what a text contains of all kinds, in the order of the text."""
    spoken = write_digits(text)
    masked = list(spoken.text)
    if not any(map(str.isdigit, masked)) and not may_contain_email(text):
        return []
    findings = []
    searches: list[tuple[str, Search]] = [*_SEARCHES, ("phone", partial(find_phones, spoken=spoken))]
    for kind, search in searches:
        for begin, end in search("".join(masked)):
            if not _MASKS.isdisjoint(masked[begin:end]):
                continue
            masked[begin:end] = _MASK * (end - begin)
            if kind == "card":
                masked[begin] = CARD_MASK
            findings.append(RedactionSpan(*spoken.to_original(begin, end), kind))
    return sorted(findings)


def replace_findings(text: str, findings: Sequence[RedactionSpan]) -> str:
    """Return a text with placeholders instead of findings, of which some may overlap."""
    parts, done = list[str](), 0
    for finding in merge_findings(findings):
        parts += [text[done : finding.begin], PLACEHOLDERS[finding.kind]]
        done = finding.end
    return "".join([*parts, text[done:]])


def merge_findings(findings: Sequence[RedactionSpan]) -> list[RedactionSpan]:
    """Return findings in the order of the text, those that overlap as one of the kind of the first."""
    merged: list[RedactionSpan] = []
    for finding in sorted(findings, key=lambda each: (each.begin, -each.end)):
        if merged and finding.begin < merged[-1].end:
            merged[-1] = attrs.evolve(merged[-1], end=max(merged[-1].end, finding.end))
        else:
            merged.append(finding)
    return merged


def find_in_part(parts: Sequence[str], place: int) -> list[RedactionSpan]:
    """Return what is found in one of several texts that follow each other, by itself or together with the others."""
    return [*find_together(parts, place), *find_all(parts[place])]


def find_together(parts: Sequence[str], place: int) -> list[RedactionSpan]:
    """Return what is found in one of several texts that follow each other, together with the others."""
    begin, text = sum(len(part) + 1 for part in parts[:place]), parts[place]
    return [
        RedactionSpan(max(0, finding.begin - begin), min(len(text), finding.end - begin), finding.kind)
        for finding in find_all(" ".join(parts))
        if finding.end > begin and finding.begin < begin + len(text)
    ]
