"""Which requests show that their client knows the token of this runtime."""

import hmac
import re
import socket
from collections.abc import Sequence

from memoair_protocol.token_proof import CHALLENGE_HEADER, Challenge, Ends

_AUTHORIZATION = re.compile(rb"^authorization:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_CHALLENGE = re.compile(rb"^" + CHALLENGE_HEADER.lower().encode() + rb":([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class TokenCheck:
    """Checks requests against the token. Thread-safe. Without a token, every local client is trusted.

    Attributes:
        token: The token, or None.
    """

    def __init__(self, token: str | None) -> None:
        self.token = token or None
        self._token_bytes = (token or "").encode()

    def admits(self, authorizations: Sequence[str]) -> bool:
        """Return whether the values of a request's Authorization headers, decoded as Latin-1, admit it.

        Of several, another program might have checked another one.
        """
        if self.token is None:
            return True
        if len(authorizations) != 1:
            return False
        scheme, _, token = authorizations[0].strip().partition(" ")
        # Encoding restores the bytes of the header exactly.
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), self._token_bytes)

    def proves(self, challenge: Challenge | None, connection: socket.socket) -> bool:
        """Return whether a challenge proves that its client knows the token."""
        if self.token is None or challenge is None:
            return self.token is None
        return challenge.is_by_owner_of(self.token, Ends.seen_by_runtime(connection))

    def shows_token(self, head: bytes | bytearray, connection: socket.socket) -> bool:
        """Return whether the raw head of a request shows the token.

        This decides only which request is served first. Whether it is admitted is decided from its parsed headers.
        """
        if self.token is None:
            return True
        if (bearer := _AUTHORIZATION.search(head)) and self.admits([bearer[1].decode("latin-1")]):
            return True
        challenge = _CHALLENGE.search(head)
        return challenge is not None and self.proves(Challenge.parse(challenge[1].decode("latin-1")), connection)
