"""The tenant table: which customer has which project and which agent. Ids only; the key is in no table."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fundamento.partner_api import PartnerApi

_CREATE_TABLE = """
create table if not exists tenants (
    customer text primary key,
    project_id text not null unique,
    agent_id text not null
) strict
"""


@dataclass(frozen=True)
class Customer:
    """Whom Fundamento builds an agent for."""

    slug: str
    name: str
    agent_name: str


@dataclass(frozen=True)
class Tenant:
    """A customer as the memory knows him."""

    customer: str
    project_id: str
    agent_id: str


class TenantTable:
    """The table in an SQLite file; each call has a connection of its own, so any thread or process may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as table, table:
            table.execute(_CREATE_TABLE)

    def list_tenants(self) -> list[Tenant]:
        """All customers that are ready to be called."""
        with closing(self._connect()) as table:
            rows = table.execute("select customer, project_id, agent_id from tenants order by customer")
            return [Tenant(*row) for row in rows]

    def onboard(self, customer: Customer, partner_api: PartnerApi) -> Tenant:
        """Provision a customer and note him; one who is known stays as he is.

        Whatever fails, wherever: to do it again goes on from there. Raises `requests.RequestException`.
        """
        tenants = {tenant.customer: tenant for tenant in self.list_tenants()}
        if customer.slug in tenants:
            return tenants[customer.slug]
        project_id = partner_api.ensure_project(customer.name, customer.slug)
        tenant = Tenant(customer.slug, project_id, partner_api.ensure_agent(project_id, customer.agent_name))
        with closing(self._connect()) as table, table:
            table.execute(
                "insert or ignore into tenants values (?, ?, ?)", (tenant.customer, tenant.project_id, tenant.agent_id)
            )
        return tenant

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10)
