"""Redaction of account, card and telephone numbers, for the ``redact=`` argument of a client.

Example:
    ```python
    from memoair_voice_sync.redaction import redact

    client = MemoAirVoiceClientSync(..., redact=redact)
    ```

It finds numbers as speech recognizers write them: in digits, and in words of English, German and Spanish. It does not
find names and addresses. ``docs/calls.md`` lists what counts as a number. An application that needs more passes a
function of its own.
"""

from memoair_redaction import DEFAULT_KINDS, KINDS, Redactor

__all__ = ["KINDS", "redact", "redactor"]


def redactor(*kinds: str) -> Redactor:
    """Return a function that redacts some kinds of data, for the ``redact=`` argument of a client.

    Args:
        *kinds: What to redact, at least one of `KINDS`: ``iban``, ``card``, ``phone``, ``email``, ``birth_date``,
            ``security_code``.

    Returns:
        A function from a text to the redacted text. It is safe to call from any thread, and takes time in proportion
            to the length of the text.

    Raises:
        ValueError: If no kind is given, or one is unknown.
    """
    return Redactor(kinds)


redact: Redactor = redactor(*DEFAULT_KINDS)
"""Replace the numbers in a text by their names in brackets, such as "My card is [card number]": all of `KINDS` but mail
addresses.
"""
