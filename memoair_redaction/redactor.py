"""A function that redacts some kinds of data, in a text, in a JSON value, and in what is said in a talk."""

from collections.abc import Iterable
from typing import Any

import attrs

from memoair_redaction.findings import KINDS, RedactionSpan, find_all, find_in_part, merge_findings, replace_findings
from memoair_redaction.spoken_text import has_numbers
from memoair_redaction.structures import redact_value
from memoair_redaction.unfinished import find_unfinished_card

# A number with the words that name it.
_MAX_TAIL_CHARS = 120


def _validate_kinds(kinds: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(kinds)
    if not chosen or chosen - set(KINDS):
        raise ValueError(f"kinds must be at least one of {', '.join(KINDS)}")
    return chosen


@attrs.frozen
class Redactor:
    """A function that redacts some kinds of data in a text. Any thread may call it.

    Attributes:
        kinds: What it redacts, at least one of `KINDS`.
    """

    kinds: frozenset[str] = attrs.field(converter=_validate_kinds)

    def __call__(self, text: str) -> str:
        """Return the text with the name of its kind in brackets instead of each number.

        Args:
            text: What was said.
        """
        return replace_findings(text, self._chosen(find_all(text)))

    def redact_value(self, value: Any, name: str = "") -> Any:
        """Return a JSON value without what is found in its texts and whole numbers.

        Numbers that are split over list items, word arrays or fields are found, too. The first part becomes the
        placeholder, and the other parts are removed.

        Args:
            value: The value. It is not changed.
            name: The name of its field, which may say what it is: ``cvc``.
        """
        return redact_value(self.kinds, value, name)

    def redact_said(self, text: str, before: str = "", question: str = "", after: str = "") -> str:
        """Return what was said in a talk, redacted with regard to what was said before and after it.

        Args:
            text: What is said.
            before: What the same person has said right before, as `tail` returns it: a number may continue.
            question: What the other one has said right before: it may ask for a number.
            after: What the same person says next, if it is known: the number may continue there.
        """
        return replace_findings(text, self.find_said(text, before, question, after))

    def find_said(self, text: str, before: str = "", question: str = "", after: str = "") -> list[RedactionSpan]:
        """Return what `redact_said` replaces, in the order of the text. The arguments are the same."""
        if not has_numbers(text):
            return merge_findings(self._chosen(find_all(text)))
        findings = find_in_part([before, text, after[:_MAX_TAIL_CHARS]], 1) + find_in_part(
            [question[-_MAX_TAIL_CHARS:], text], 1
        )
        findings += find_unfinished_card(before, text, question[-_MAX_TAIL_CHARS:])
        return merge_findings(self._chosen(findings))

    def tail(self, before: str, text: str) -> str:
        """Return the end of what a person has said, if a number in it may continue; otherwise the empty text."""
        return f"{before} {text}"[-_MAX_TAIL_CHARS:] if has_numbers(text) else ""

    def _chosen(self, findings: Iterable[RedactionSpan]) -> list[RedactionSpan]:
        return [finding for finding in findings if finding.kind in self.kinds]
