"""The call router: each customer's calls use the customer's own client, and load is shed if a pool is full."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from fundamento.tenant_table import Tenant
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

log = logging.getLogger("fundamento")

R = TypeVar("R")
AnswerFunction = Callable[[str, str], str]  # (user_text, memory) -> reply


@dataclass(frozen=True)
class TenantLimits:
    """What one customer may use of this machine.

    Each customer has ports of their own, so a rush of calls to one does not affect the others.

    Attributes:
        max_callers: How many callers can have a runtime at a time.
        first_port: The first port of the first customer.
        ports: The number of ports per customer.
        recall_timeout_ms: How long a caller waits for memories, in milliseconds.
    """

    max_callers: int = 64
    first_port: int = 7_878
    ports: int = 100
    recall_timeout_ms: float = 250


class CallRouter:
    """One client per tenant, created at the start and closed at the end. Safe to use from any thread.

    Every turn gets an answer. Operations that the memory could not do, because a pool was full (``pool.exhausted``) or
    out of ports (``pool.port_exhausted``), are counted by customer and code: see `shed_counts`. Operators watch these
    counts, and raise the limits or add a machine.
    """

    def __init__(
        self,
        tenants: Iterable[Tenant],
        answer: AnswerFunction,
        *,
        api_key: str,
        cloud_base_url: str | None,
        storage_root: str | None = None,
        limits: TenantLimits | None = None,
    ) -> None:
        self._answer = answer
        self._limits = limits = limits or TenantLimits()
        self._shed_lock = threading.Lock()
        self._shed_counts: Counter[tuple[str, str]] = Counter()
        self._clients = {
            tenant.customer: MemoAirVoiceClientSync(
                api_key=api_key,  # of the account; the project separates the customers
                project_id=tenant.project_id,
                agent_id=tenant.agent_id,
                cloud_base_url=cloud_base_url,
                storage_root=storage_root,
                max_concurrent_users=limits.max_callers,
                runtime_port_range=_port_slice(limits, position),
            )
            for position, tenant in enumerate(tenants)
        }

    def client(self, customer: str) -> MemoAirVoiceClientSync:
        """Return the customer's client. Raises KeyError for an unknown customer."""
        return self._clients[customer]

    def warm_up(self, customer: str, caller_id: str, caller_name: str = "", *, call_id: str | None = None) -> None:
        """Load a caller's memory while the phone rings. ``call_id`` is the telephone platform's id of the call."""
        client, user = self.client(customer), _make_user(customer, caller_id, caller_name)
        self._call_or_shed(customer, lambda: client.load_index(user=user, session_id=call_id))

    def answer_turn(
        self, customer: str, caller_id: str, user_text: str, caller_name: str = "", *, call_id: str | None = None
    ) -> str:
        """Return the answer of the customer's agent, from this caller's memory, and save the turn."""
        client, user = self.client(customer), _make_user(customer, caller_id, caller_name)
        timeout_ms = self._limits.recall_timeout_ms
        found = self._call_or_shed(
            customer,
            lambda: client.search_memory(user_text, user=user, session_id=call_id, timeout_ms=timeout_ms),
        )
        reply = self._answer(user_text, found.contextText if found is not None else "")
        self._call_or_shed(
            customer,
            lambda: client.save_response(user_text=user_text, assistant_text=reply, user=user, session_id=call_id),
        )
        return reply

    def hang_up(self, customer: str, caller_id: str, *, call_id: str | None = None) -> None:
        """End a call, so that the cloud learns from it. Without an end, it does so after some minutes."""
        client, user = self.client(customer), _make_user(customer, caller_id, "")
        self._call_or_shed(customer, lambda: client.end_call(user=user, session_id=call_id))

    def shed_counts(self) -> dict[str, dict[str, int]]:
        """Return the operations that were shed (loading, searches, and turns not saved), by customer and code."""
        with self._shed_lock:
            counts: dict[str, dict[str, int]] = {customer: {} for customer in self._clients}
            for (customer, code), count in self._shed_counts.items():
                counts[customer][code] = count
            return counts

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return the statistics of each customer's client."""
        return {customer: client.stats() for customer, client in self._clients.items()}

    def close(self) -> None:
        """Close the clients of all customers at the same time."""
        threads = [threading.Thread(target=client.close) for client in self._clients.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _call_or_shed(self, customer: str, call: Callable[[], R]) -> R | None:
        try:
            return call()
        except MemoAirVoiceMemoryError as error:
            with self._shed_lock:
                self._shed_counts[customer, error.code] += 1
            log.warning("served without memory: customer=%s code=%s", customer, error.code)
            return None


def _make_user(customer: str, caller_id: str, caller_name: str) -> dict[str, Any]:
    name = {"name": caller_name} if caller_name else {}
    return {"id": caller_id, **name, "metadata": {"tenant": customer, "source": "voice"}}


def _port_slice(limits: TenantLimits, position: int) -> tuple[int, int]:
    first = limits.first_port + position * limits.ports
    return first, first + limits.ports - 1
