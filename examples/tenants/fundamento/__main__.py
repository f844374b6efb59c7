"""``python -m fundamento``: provisions three customers, calls them, and shows that their memories are separate."""

import os
import sys
from contextlib import closing
from pathlib import Path

from fundamento.call_router import CallRouter, TenantLimits
from fundamento.partner_api import PartnerApi
from fundamento.tenant_table import Customer, TenantTable

CUSTOMERS = [
    Customer("acme", "Acme", "Returns concierge"),
    Customer("beta", "Beta", "Triage IVR"),
    Customer("gamma", "Gamma", "Onboarding tutor"),
]
POLICIES = {
    "acme": "Boots can be returned within thirty days, with the receipt.",
    "beta": "Boots in the emergency room are left at the door.",
    "gamma": "Lessons begin on Monday.",
}
ALEX = "caller_ab12"  # one person who calls all three; the number is hashed as in examples/flask_bridge


def answer(user_text: str, memory: str) -> str:
    """Stand in for a language model: repeat the facts that it would get."""
    facts = [line[2:] for line in memory.splitlines() if line.startswith("- ")]
    return f"You said {user_text!r}. I know: {' / '.join(facts) or 'nothing'}."


def main() -> int:
    """Provision the customers, call them, and print what the agent of each one knows."""
    try:
        base_url, api_key = os.environ["MEMOAIR_BASE_URL"], os.environ["MEMOAIR_API_KEY"]
    except KeyError as missing:
        print(f"{missing.args[0]} is not set; see README.md", file=sys.stderr)
        return 2
    table = TenantTable(Path(os.environ.get("TENANT_TABLE", "tenants.sqlite")))
    with closing(PartnerApi(base_url, api_key)) as partner_api:
        for customer in CUSTOMERS:
            tenant = table.onboard(customer, partner_api)
            print(f"{tenant.customer}: {tenant.project_id}, {tenant.agent_id}")
    recall_ms = float(os.environ.get("RECALL_MS", "250"))
    limits = TenantLimits(
        first_port=int(os.environ.get("FIRST_PORT", "7878")), ports=20, max_callers=20, recall_timeout_ms=recall_ms
    )
    storage_root = os.environ.get("MEMOAIR_RUNTIME_STORAGE_ROOT")
    router = CallRouter(
        table.list_tenants(), answer, api_key=api_key, cloud_base_url=base_url, storage_root=storage_root, limits=limits
    )
    with closing(router):
        for slug, policy in POLICIES.items():
            router.client(slug).create_index("policies", [{"id": "boots", "text": policy}])
            router.warm_up(slug, ALEX, "Alex")
        router.answer_turn("acme", ALEX, "My boots are size nine.")
        router.answer_turn("beta", ALEX, "My knee hurts.")
        for slug in POLICIES:
            print(f"{slug}: {router.answer_turn(slug, ALEX, 'What do you know about my boots, or my knee?')}")
        runtimes = {
            slug: [runtime["pid"] for runtime in stats["runtimes"] if runtime["user_id"] == ALEX]
            for slug, stats in router.stats().items()
        }
        print(f"runtimes: {runtimes}")
        print(f"shed: {router.shed_counts()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
