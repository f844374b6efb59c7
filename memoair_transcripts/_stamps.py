"""Times in the lines of a transcript, in the spellings of the tools that write them."""

import re

# Whole seconds or fractions, minutes without hours, 12 or 24 hours.
CLOCK = r"\d{1,3}:\d{2}(?::\d{1,2})?(?:[.,]\d{1,9})?(?: ?[AaPp]\.?[Mm]\b\.?)?"
_ISO_DATE = r"\d{4}-\d{2}-\d{2}"
_NUMERIC_DATE = r"\d{1,4}[./-]\d{1,2}[./-]\d{2,4}"
_ZONE = r"(?: ?(?:[Zz]|[+-]\d\d:?\d\d)\b)?"
_STAMP = rf"(?:(?:{_ISO_DATE}|{_NUMERIC_DATE})(?:,? |[Tt]){CLOCK}{_ZONE}|{CLOCK})"
# Teams writes its clocks with single digits: 0:0:3.52 --> 0:0:5.
_LOOSE_CLOCK = r"\d{1,3}:\d{1,2}:\d{1,2}(?:[.,]\d{1,9})?"
_END = rf"(?: ?(?:-->|[-\u2013\u2014]|to) ?(?:{_STAMP}|{_LOOSE_CLOCK}))?"

# A time that a line begins with, and what separates it from the rest.
LEADING_STAMP = re.compile(
    rf"(?:[\[(<]\s*(?P<bracketed>{_STAMP}|{_LOOSE_CLOCK}|{_ISO_DATE}){_END}\s*[\])>](?:\(https?://[^\s()]*\))?"
    rf"|(?P<bare>(?:{_STAMP}|{_LOOSE_CLOCK})){_END}(?=\s|$|[|,]))"
    r"(?P<separator>\s*(?:[|,]|[-\u2013\u2014](?=\s))?\s*)"
)
# A time that a label ends with, and one behind a label.
_BEHIND_LABEL = (
    rf"(?P<separator>\s*[,|\u00b7\u2022\u2013\u2014-]\s*|\s+at\s+|\s+|(?=[\[(]))"
    rf"(?P<open>[\[(]?)\s*(?P<stamp>{_STAMP}|{_LOOSE_CLOCK}){_END}\s*[\])]?(?:\(https?://[^\s()]*\))?"
)
TRAILING_STAMP = re.compile(rf"{_BEHIND_LABEL}$")
INNER_STAMP = re.compile(rf"{_BEHIND_LABEL}(?=\s|$)\s*(?:[|-](?=\s))?\s*")
HAS_DATE = re.compile(rf"{_ISO_DATE}|{_NUMERIC_DATE}")
_FIRST_NUMBERS = re.compile(r"^\W{0,3}(\d{1,2})[./-](\d{1,2})[./-]\d{2,4}\b", re.MULTILINE)


def is_day_first(head: str) -> bool | None:
    """Return whether the dates of a file, such as 3/2/2026, begin with the day. Return None if they do not say so."""
    dates = [(int(match[1]), int(match[2])) for match in _FIRST_NUMBERS.finditer(head)]
    if any(first > 12 for first, _ in dates):
        return True
    if any(second > 12 for _, second in dates):
        return False
    return None
