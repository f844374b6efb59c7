"""HTTP headers that several packages send or read."""

import email.utils
from collections.abc import Mapping

from memoair_protocol.identifiers import identifier_problem
from memoair_protocol.timestamps import to_utc, utc_now


def identity_headers(project_id: str | None, agent_id: str | None, user_id: str | None = None) -> Mapping[str, str]:
    """Return the headers that name an agent and a user; the values are UTF-8 in whatever encoding the client uses.

    Raises:
        ValueError: If an id is invalid: a header could not hold it unchanged, or the cloud would reject it.
    """
    ids = {"X-Project-Id": project_id, "X-Agent-Id": agent_id, "X-User-Id": user_id}
    headers = {}
    for name, value in ids.items():
        if value is not None:
            if problem := identifier_problem(value):
                raise ValueError(f"{name} {problem}")
            headers[name] = encode_header(value)
    return headers


def encode_header(value: str) -> str:
    """Return the value of a header so that it is sent as UTF-8: HTTP libraries encode headers as Latin-1."""
    return value.encode().decode("latin-1")


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header, which is a number or a date; None if it is neither."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        moment = to_utc(email.utils.parsedate_to_datetime(header))
    except ValueError:
        return None
    return max(0.0, (moment - utc_now()).total_seconds())
