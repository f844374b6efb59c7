"""The tenant table: the project and the agent of each customer. It contains only ids, never the key."""

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
    """A customer of Fundamento, which builds an agent for each."""

    slug: str
    name: str
    agent_name: str


@dataclass(frozen=True)
class Tenant:
    """The ids of a customer in the memory."""

    customer: str
    project_id: str
    agent_id: str


class TenantTable:
    """The table, in an SQLite file. Each call opens its own connection, so any thread or process may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as table, table:
            table.execute(_CREATE_TABLE)

    def list_tenants(self) -> list[Tenant]:
        """Return all customers that are ready to take calls."""
        with closing(self._connect()) as table:
            rows = table.execute("select customer, project_id, agent_id from tenants order by customer")
            return [Tenant(*row) for row in rows]

    def onboard(self, customer: Customer, partner_api: PartnerApi) -> Tenant:
        """Provision a customer and add them to the table, unless they are there already.

        If this fails at any point, calling it again continues from there. Raises `requests.RequestException`.
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
