"""The numbers that were removed from what was said, so that they are also removed where nothing names them."""

import re
from typing import Any

from memoair_redaction.findings import RedactionSpan, replace_findings
from memoair_redaction.spoken_text import WEAK_SEPARATOR, write_digits

# Fewer name no one, and stand in any text: "12 days".
_MIN_DIGITS = 3
_SEPARATORS = rf"[\s,./()_{WEAK_SEPARATOR}-]{{0,3}}"


class RemovedNumbers:
    """What was removed from the turns of a case. Not thread-safe while it is filled."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}  # by the digits and letters

    def add(self, text: str, findings: list[RedactionSpan]) -> None:
        """Add what was found in a text."""
        for finding in findings:
            key = _squeeze(write_digits(text[finding.begin : finding.end]).text)
            if sum(map(str.isdigit, key)) >= _MIN_DIGITS:
                self._kinds.setdefault(key, finding.kind)

    def replace(self, text: str) -> str:
        """Return a text with the same placeholders instead of these numbers, however they are written or spoken."""
        if not self._kinds:
            return text
        spoken = write_digits(text)
        squeezed = _squeeze(spoken.text)
        findings = [
            RedactionSpan(*spoken.to_original(*match.span()), kind)
            for key, kind in sorted(self._kinds.items(), key=lambda entry: -len(entry[0]))
            if key in squeezed
            for match in re.finditer(rf"(?<!\w){_SEPARATORS.join(key)}(?!\w)", spoken.text, re.IGNORECASE)
        ]
        return replace_findings(text, findings)

    def replace_in_value(self, value: Any) -> Any:
        """Return a JSON value with its texts replaced; names and numbers stay as they are."""
        if isinstance(value, dict):
            return {name: self.replace_in_value(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self.replace_in_value(part) for part in value]
        return self.replace(value) if isinstance(value, str) else value


def _squeeze(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()
