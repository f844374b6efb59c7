"""Lines that tools write around what was said: titles, lists of people, closing lines. A table, by tool."""

import re

from memoair_transcripts._labels import clean_line

_LINES = (
    # Otter
    r"transcribed by (?:https?://)?otter\.ai.*",
    # Google Meet, and the notes that Gemini takes
    r"(?:meeting|transcription|call|recording) ended after [\d:]+\W*",
    r"this (?:editable )?transcript was (?:computer|auto\w*)[- ]generated.*",
    r"people can also change the text after it was created\.?",
    r"you should review gemini['\u2019]s notes.*",
    r"(?:please provide feedback|how is the quality|get tips and learn).*gemini.*",
    # Teams and Zoom
    r".{1,80} (?:started|stopped) (?:the )?(?:transcription|recording)\.?",
    # Rev
    r"this transcript was exported on .*",
    # Any
    r"\W*(?:end|start|beginning) of (?:the )?(?:transcript|transcription|recording|call|meeting)\W*",
)
_FURNITURE = re.compile("|".join(f"(?:{line})" for line in _LINES), re.IGNORECASE)
_MARKUP = "*_# \t"
# Meet and Gemini put the people, and a summary with labels of its own, before a heading "Transcript".
_TRANSCRIPT_HEADING = re.compile(r"\W*transcript\W*|.* [-\u2013\u2014] transcript\W*", re.IGNORECASE)
_SUMMARY_HEADINGS = re.compile(
    r"\W*(?:(?:attendees|invited|attachments|meeting records)(?:\s.*)?|notes|summary|details|(?:suggested )?next steps)"
    r"\W*",
    re.IGNORECASE,
)
# Otter's and Teams's lists before the first speaker.
_TITLE_LINES = re.compile(
    r"summary keywords|speakers|\w{3,9},? \w{3,9}\.? \d{1,2},? .*\d{1,2}:\d\d.*|\w{3,9} \d{1,2}, \d{4}\b.*"
    r"|(?:\d{1,2}h ?)?\d{1,3}m(?: \d{1,2}s)?",
    re.IGNORECASE,
)
_MAX_PREAMBLE_LINES, _MAX_TITLE_LINES, _MAX_LIST_LINES = 1_000, 5, 30


def is_furniture(line: str) -> bool:
    """Return whether a tool wrote the line, so that it was not said."""
    return _FURNITURE.fullmatch(clean_line(line).strip(_MARKUP)) is not None


def is_title_line(line: str) -> bool:
    """Return whether a line before the first speaker belongs to a tool's title."""
    return _TITLE_LINES.fullmatch(clean_line(line).strip(_MARKUP)) is not None


def preamble_length(head: str) -> int:
    """Return how many lines at the start of a file a tool wrote before the transcript begins."""
    has_summary, end = False, 0
    for number, line in enumerate(head.split("\n")[:_MAX_PREAMBLE_LINES], 1):
        text = clean_line(line).strip(_MARKUP)
        if _TRANSCRIPT_HEADING.fullmatch(text) and (has_summary or number <= _MAX_TITLE_LINES):
            end = number
        has_summary = has_summary or _SUMMARY_HEADINGS.fullmatch(text) is not None
    return end


def has_title(head: str) -> bool:
    """Return whether a file begins with a title and lists of a tool, so that words before the first label are those."""
    lines = head.split("\n")[:_MAX_LIST_LINES]
    return preamble_length(head) > 0 or any(is_title_line(line) or is_furniture(line) for line in lines)
