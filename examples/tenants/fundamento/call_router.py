"""The call router: each customer's calls to his own client, and load shed where a pool is full."""

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
AnswerFunction = Callable[[str, str], str]  # from what was said and what is known to what is said


@dataclass(frozen=True)
class TenantLimits:
    """What one customer may take of this machine. Each has ports of his own: nobody's rush takes another's."""

    max_callers: int = 64
    first_port: int = 7_878
    ports: int = 100
    recall_timeout_ms: float = 250


class CallRouter:
    """One client for each tenant, made at the start and closed at the end. Safe to use from any thread.

    A turn is answered in any case. What the memory could not do is counted: ``shed`` by customer and code, where a pool
    was full (``pool.exhausted``) or out of ports (``pool.port_exhausted``); an operator watches that, and raises the
    limits or adds a machine.
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
                api_key=api_key,  # of the account; what keeps customers apart is the project
                project_id=tenant.project_id,
                agent_id=tenant.agent_id,
                cloud_base_url=cloud_base_url,
                storage_root=storage_root,
                max_concurrent_users=limits.max_callers,
                runtime_port_range=_port_slice(limits, place),
            )
            for place, tenant in enumerate(tenants)
        }

    def client(self, customer: str) -> MemoAirVoiceClientSync:
        """The customer's client; KeyError for who is none, as a call to a number that nobody has."""
        return self._clients[customer]

    def warm_up(self, customer: str, caller_id: str, caller_name: str = "") -> None:
        """Make a caller's memory ready while the phone rings."""
        client = self.client(customer)
        self._call_or_shed(customer, lambda: client.load_index(user=_make_user(customer, caller_id, caller_name)))

    def answer_turn(self, customer: str, caller_id: str, user_text: str, caller_name: str = "") -> str:
        """What the customer's agent answers. Who calls decides whose memory it is: each call names its caller."""
        client, user = self.client(customer), _make_user(customer, caller_id, caller_name)
        found = self._call_or_shed(
            customer, lambda: client.search_memory(user_text, user=user, timeout_ms=self._limits.recall_timeout_ms)
        )
        reply = self._answer(user_text, found.contextText if found is not None else "")
        self._call_or_shed(customer, lambda: client.save_response(user_text=user_text, assistant_text=reply, user=user))
        return reply

    def shed_counts(self) -> dict[str, dict[str, int]]:
        """By customer and code, how often he was served without memory: searches, and turns that were not kept."""
        with self._shed_lock:
            counts: dict[str, dict[str, int]] = {customer: {} for customer in self._clients}
            for (customer, code), count in self._shed_counts.items():
                counts[customer][code] = count
            return counts

    def stats(self) -> dict[str, dict[str, Any]]:
        """What each customer's client tells of itself."""
        return {customer: client.stats() for customer, client in self._clients.items()}

    def close(self) -> None:
        """End all calls and runtimes, those of all customers at once."""
        threads = [threading.Thread(target=client.close) for client in self._clients.values()]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

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
