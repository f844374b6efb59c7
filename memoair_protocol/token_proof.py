"""Proof that a client and a runtime know the same token, without sending it.

The port of a runtime may be held by another program, which answers its health check with the right ids. A client
therefore sends a challenge on each new connection, and sends neither the token nor what anyone said before the runtime
has answered it. Both proofs cover the addresses and ports of both ends of the connection: another program can't pass a
challenge on to the real runtime, since it can't have the same two ends.
"""

import hashlib
import hmac
import json
import re
import secrets
import socket
from typing import NamedTuple

CHALLENGE_HEADER = "MemoAir-Challenge"
PROOF_HEADER = "MemoAir-Proof"
# The value of `PROOF_HEADER` if the client's token is not the runtime's.
WRONG_TOKEN = "wrong-token"  # noqa: S105 - not a token

_SCHEME = "memoair-runtime-proof-1"
_CHALLENGE = re.compile(r"([0-9a-f]{32}) ([0-9a-f]{64})")
_NONCE_BYTES = 16


class Ends(NamedTuple):
    """The two ends of a connection, as ``host:port``."""

    client: str
    runtime: str

    @classmethod
    def seen_by_client(cls, connection: socket.socket) -> "Ends":
        """Return the ends of a connection to a runtime."""
        return cls(_name(connection.getsockname()), _name(connection.getpeername()))

    @classmethod
    def seen_by_runtime(cls, connection: socket.socket) -> "Ends":
        """Return the ends of a connection from a client."""
        return cls(_name(connection.getpeername()), _name(connection.getsockname()))


class Challenge(NamedTuple):
    """A challenge. It proves that the client knows the token: a runtime answers no other one."""

    nonce: str
    client_proof: str

    @classmethod
    def make(cls, token: str, ends: Ends) -> "Challenge":
        """Return a new challenge of a client."""
        nonce = secrets.token_hex(_NONCE_BYTES)
        return cls(nonce, _sign(token, "client", nonce, ends))

    @classmethod
    def parse(cls, header: str) -> "Challenge | None":
        """Return the challenge in the value of a header, or None if it is malformed."""
        match = _CHALLENGE.fullmatch(header.strip())
        return cls(*match.groups()) if match else None

    def header(self) -> str:
        """Return the value of the header."""
        return f"{self.nonce} {self.client_proof}"

    def is_by_owner_of(self, token: str, ends: Ends) -> bool:
        """Return whether the client knows the token."""
        return hmac.compare_digest(self.client_proof, _sign(token, "client", self.nonce, ends))

    def runtime_proof(self, token: str, ends: Ends, project_id: object, user_id: object) -> str:
        """Return the proof of a runtime that serves this project and user."""
        return _sign(token, "runtime", self.nonce, ends, project_id, user_id)

    def is_answered_by(self, proof: str, token: str, ends: Ends, project_id: object, user_id: object) -> bool:
        """Return whether a proof is that of a runtime with the token, at the other end, of this project and user."""
        expected = self.runtime_proof(token, ends, project_id, user_id)
        return hmac.compare_digest(proof.encode(), expected.encode())


def _sign(token: str, role: str, nonce: str, ends: Ends, *ids: object) -> str:
    # JSON, so that no two lists of parts have the same text.
    message = json.dumps([_SCHEME, role, nonce, *ends, *ids]).encode()
    return hmac.new(token.encode(), message, hashlib.sha256).hexdigest()


def _name(address: tuple[object, ...]) -> str:
    return f"{address[0]}:{address[1]}"
