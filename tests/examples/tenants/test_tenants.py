"""The multi-tenant guide as a program: three isolated customers with one cloud, and load shedding."""

import json
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from fundamento.__main__ import ALEX, CUSTOMERS, main
from fundamento.call_router import CallRouter, TenantLimits
from fundamento.partner_api import PartnerApi
from fundamento.tenant_table import Tenant, TenantTable
from support.clients import free_ports
from support.clouds import Client, running
from support.commands import free_port, run_in_background, run_process, serve_arguments
from support.file_server import FileServer, redirect_to
from support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.timeout(600)

EXAMPLE = Path(__file__).parents[3] / "examples" / "tenants"
TENANTS = [Tenant(slug, f"proj_{slug}", f"agent_{slug}") for slug in ("acme", "beta", "gamma")]
RouterFactory = Callable[..., CallRouter]


@contextmanager
def run_cloud(home: Path) -> Iterator[tuple[str, str]]:
    """Run ``memoair cloud serve``; yield its URL and the API key of Fundamento's account."""
    url, port = f"sqlite:///{home / 'cloud.sqlite'}", free_port()
    key = json.loads(
        run_process("cloud", "init", "--account", "Fundamento", "--database-url", url, "--json", home=home)
    )["apiKey"]
    with run_in_background(*serve_arguments(home, url, port), home=home):
        eventually(lambda: _accepts_connections(port), within_s=30)
        yield f"http://127.0.0.1:{port}", key


def _accepts_connections(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def run_fundamento(home: Path, base_url: str, key: str) -> dict[str, str]:
    """Run the program; return its output by label: ``"acme"`` for the ids, ``"acme says"`` for the answer."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fundamento"],
        cwd=EXAMPLE,
        env={
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": PATIENCE,
            "MEMOAIR_BASE_URL": base_url,
            "MEMOAIR_API_KEY": key,
            "TENANT_TABLE": str(home / "tenants.sqlite"),
            "MEMOAIR_RUNTIME_STORAGE_ROOT": str(home / "storage"),
            "RECALL_MS": "10000",
            "FIRST_PORT": str(free_ports(60)[0]),
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    lines = [line.partition(": ") for line in done.stdout.splitlines()]
    return {f"{label}{'' if index < 3 else ' says'}": text for index, (label, _, text) in enumerate(lines)}


def test_three_customers_are_provisioned_called_and_isolated(tmp_path: Path, nothing_left_behind: None) -> None:
    with run_cloud(tmp_path) as (base_url, key):
        first = run_fundamento(tmp_path, base_url, key)
        second = run_fundamento(tmp_path, base_url, key)
        with requests.Session() as http:
            http.headers["Authorization"] = f"Bearer {key}"
            projects = http.get(f"{base_url}/v1/projects", timeout=10).json()["projects"]
            users_by_customer = {
                slug: http.get(
                    f"{base_url}/v1/voice-sdk/users",
                    headers=dict(zip(("X-Project-Id", "X-Agent-Id"), first[slug].split(", "), strict=True)),
                    timeout=10,
                ).json()["users"]
                for slug in ("acme", "beta", "gamma")
            }
    for output in (first, second):
        assert {slug: output[slug].split(", ")[0] for slug in ("acme", "beta", "gamma")} == {
            "acme": "proj_acme",
            "beta": "proj_beta",
            "gamma": "proj_gamma",
        }
        acme, beta, gamma = (output[f"{slug} says"] for slug in ("acme", "beta", "gamma"))
        assert "My boots are size nine." in acme
        assert "thirty days" in acme
        assert "My knee hurts." in beta
        assert "My knee hurts." not in acme + gamma
        assert "size nine" not in beta + gamma
        assert "thirty days" not in beta + gamma
        assert len(set(re.findall(r"\d+", output["runtimes says"]))) == 3
        assert output["shed says"] == "{'acme': {}, 'beta': {}, 'gamma': {}}"
    assert [first[slug] for slug in ("acme", "beta", "gamma")] == [second[slug] for slug in ("acme", "beta", "gamma")]
    assert sorted(project["slug"] for project in projects) == ["acme", "beta", "gamma"]
    assert all([user["userId"] for user in users] == [ALEX] for users in users_by_customer.values())
    for slug in ("acme", "beta", "gamma"):
        assert (tmp_path / "storage" / f"proj_{slug}" / ALEX).is_dir()


def test_interrupted_onboarding_continues_where_it_stopped(tmp_path: Path, nothing_left_behind: None) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.sqlite'}", tmp_path) as server:
        account: Client = server.account()
        acme, beta, _ = CUSTOMERS
        account.ok("POST", "/v1/projects", {"name": acme.name, "slug": acme.slug})  # onboarding was killed after this
        project = account.ok("POST", "/v1/projects", {"name": beta.name, "slug": beta.slug})
        agent = account.ok(
            "POST", f"/v1/projects/{project['id']}/agents", {"name": beta.agent_name, "agentType": "voice"}
        )
        with closing(PartnerApi(server.url, str(account.key))) as partner_api:
            table = TenantTable(tmp_path / "tenants.sqlite")
            for _ in range(2):
                assert [table.onboard(customer, partner_api) for customer in CUSTOMERS] == table.list_tenants()
        assert [tenant.project_id for tenant in table.list_tenants()] == ["proj_acme", "proj_beta", "proj_gamma"]
        assert table.list_tenants()[1] == Tenant("beta", project["id"], agent["id"])
        for tenant in table.list_tenants():
            agents = account.ok("GET", f"/v1/projects/{tenant.project_id}/agents")["agents"]
            assert [item["id"] for item in agents] == [tenant.agent_id]
        account.close()


def test_a_customer_that_cannot_be_provisioned_is_not_in_the_table(tmp_path: Path, nothing_left_behind: None) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.sqlite'}", tmp_path) as server:
        with closing(PartnerApi(server.url, "memoair_pk_of_nobody")) as partner_api:
            table = TenantTable(tmp_path / "tenants.sqlite")
            with pytest.raises(requests.HTTPError, match="401"):
                table.onboard(CUSTOMERS[0], partner_api)
        assert table.list_tenants() == []
    with closing(sqlite3.connect(tmp_path / "tenants.sqlite")) as database:
        assert "memoair_pk" not in "".join(database.iterdump())


def test_the_key_is_neither_led_elsewhere_by_a_redirect_nor_replaced_by_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FileServer() as elsewhere, FileServer() as redirecting:
        redirecting.responders["/v1/projects"] = redirect_to(f"{elsewhere.url}/v1/projects", 307)
        with (
            closing(PartnerApi(redirecting.url, "memoair_pk_acme")) as partner_api,
            pytest.raises(requests.HTTPError, match="redirects"),
        ):
            partner_api.ensure_project("Acme", "acme")
        assert [each.headers["authorization"] for each in redirecting.requests] == ["Bearer memoair_pk_acme"]
        assert not elsewhere.requests


def test_without_an_api_key_the_program_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEMOAIR_API_KEY", raising=False)
    monkeypatch.setenv("MEMOAIR_BASE_URL", "http://127.0.0.1:9")
    assert main() == 2
    assert "MEMOAIR_API_KEY is not set" in capsys.readouterr().err


@pytest.fixture
def make_router(tmp_path: Path, nothing_left_behind: None) -> Iterator[RouterFactory]:
    """Return a function that creates routers without a cloud; all are closed after the test."""
    routers: list[CallRouter] = []

    def make(**limits: Any) -> CallRouter:
        count = limits.get("ports", 4)
        limits = {
            "max_callers": 4,
            "ports": count,
            "first_port": free_ports(3 * count)[0],
            "recall_timeout_ms": 10_000,
            **limits,
        }
        router = CallRouter(
            TENANTS,
            lambda user_text, memory: f"{user_text} | {memory}",
            api_key="memoair_pk_local",
            cloud_base_url=None,
            storage_root=str(tmp_path),
            limits=TenantLimits(**limits),
        )
        routers.append(router)
        return router

    yield make
    for router in routers:
        router.close()


def test_a_caller_who_rings_back_is_in_another_call(make_router: RouterFactory) -> None:
    router = make_router()
    router.warm_up("acme", "alex", "Alex", call_id="CA1")
    router.answer_turn("acme", "alex", "My boots are size nine.", call_id="CA1")
    assert "## working" in router.answer_turn("acme", "alex", "Which size?", call_id="CA1")
    router.hang_up("acme", "alex", call_id="CA1")
    answer = router.answer_turn("acme", "alex", "Which size were my boots?", call_id="CA2")
    assert "size nine" in answer
    assert "## working" not in answer


def test_a_full_pool_sheds_and_counts_load_without_affecting_other_customers(make_router: RouterFactory) -> None:
    router = make_router(max_callers=1)
    with router.client("acme").session(user={"id": "who talks all day"}):
        router.warm_up("acme", "late")
        assert router.answer_turn("acme", "late", "Hello?") == "Hello? | "
        router.answer_turn("beta", "late", "My knee hurts.")
        assert "My knee hurts." in router.answer_turn("beta", "late", "What hurts?")
        assert router.shed_counts() == {"acme": {"pool.exhausted": 3}, "beta": {}, "gamma": {}}
    router.answer_turn("acme", "late", "My boots are size nine.")
    assert "size nine" in router.answer_turn("acme", "late", "Which size?")
    assert router.shed_counts()["acme"] == {"pool.exhausted": 3}


def test_exhausted_ports_shed_and_count_load_without_affecting_other_customers(make_router: RouterFactory) -> None:
    first, _ = free_ports(3)
    router = make_router(ports=1, first_port=first)
    with socket.create_server(("127.0.0.1", first)):
        assert router.answer_turn("acme", "late", "Hello?") == "Hello? | "
        assert set(router.shed_counts()["acme"]) == {"pool.port_exhausted"}
        router.answer_turn("beta", "late", "My knee hurts.")
        assert "My knee hurts." in router.answer_turn("beta", "late", "What hurts?")
    assert router.shed_counts()["beta"] == {}


def test_a_call_for_an_unknown_customer_raises_key_error(make_router: RouterFactory) -> None:
    with pytest.raises(KeyError, match="delta"):
        make_router().answer_turn("delta", "who", "Hello?")


def test_errors_are_logged_without_the_words_and_ids_of_callers(
    make_router: RouterFactory, caplog: pytest.LogCaptureFixture
) -> None:
    router = make_router(max_callers=1)
    with router.client("acme").session(user={"id": "who talks all day"}):
        router.answer_turn("acme", "caller_of_this_test", "secret words")
    assert "customer=acme code=pool.exhausted" in caplog.text
    assert "secret words" not in caplog.text
    assert "caller_of_this_test" not in caplog.text
