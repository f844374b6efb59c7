"""Redaction: find account, card and telephone numbers, and what belongs to them, in what people say and write.

It knows no user, session or network. SDK, command line and cloud share it, so that a number that one of them removes is
not learned by another.
"""

from memoair_redaction.findings import DEFAULT_KINDS, KINDS, PLACEHOLDERS
from memoair_redaction.redactor import Redactor

__all__ = ["DEFAULT_KINDS", "KINDS", "PLACEHOLDERS", "Redactor"]
