"""The rule for ids of users, sessions, projects, agents, indexes and documents. Every entrance applies it.

Ids are headers, path segments, folder names and parts of database keys. An id that one of them cannot hold unchanged
would be saved on this machine and never reach the cloud. Ids of turns are not under this rule: they are only labels
within the data of a turn.
"""

import re

# PostgreSQL limits an index entry to about 2,700 bytes, and ids are parts of keys with several columns.
MAX_ID_BYTES = 512
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


def identifier_problem(value: str) -> str | None:
    """Return what is wrong with an id, to follow its name in a message; None if it is valid.

    HTTP drops white space at the ends of headers and dot segments in paths, which would make two ids equal or one
    empty. A telephone number is valid in any notation, and so is a path or an address.

    Args:
        value: The id.

    Example:
        >>> identifier_problem("+44 (0)20 7946-0018"), identifier_problem("caller_1 ")
        (None, 'begins or ends with white space')
    """
    if problem := stored_identifier_problem(value):
        return problem
    if _CONTROL_CHARACTERS.search(value):
        return "contains a control character"
    if value != value.strip():
        return "begins or ends with white space"
    if value in (".", ".."):
        return f"is {value!r}, which is a folder"
    if len(value.encode()) > MAX_ID_BYTES:
        return f"is longer than {MAX_ID_BYTES} bytes"
    return None


def stored_identifier_problem(value: str) -> str | None:
    """Return why a value cannot be an id that an earlier version has stored; None if it can.

    Earlier versions of SDK and runtime accepted ids that the cloud rejects. What they stored can still be read and
    erased.

    Args:
        value: The id.
    """
    if not value:
        return "is empty"
    if any("\ud800" <= char <= "\udfff" for char in value):
        return "is not valid Unicode: it has half of a surrogate pair"
    return "contains a null character" if "\0" in value else None
