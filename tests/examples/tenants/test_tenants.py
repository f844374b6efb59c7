"""The multi-tenant guide as a program: three customers over one cloud, each apart, and load that is shed."""

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
from support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.timeout(600)

HERE = Path(__file__).parents[3] / "examples" / "tenants"
TENANTS = [Tenant(slug, f"proj_{slug}", f"agent_{slug}") for slug in ("acme", "beta", "gamma")]
NewRouter = Callable[..., CallRouter]


@contextmanager
def cloud(home: Path) -> Iterator[tuple[str, str]]:
    """``memoair cloud serve``, and the key of Fundamento's account."""
    url, port = f"sqlite:///{home / 'cloud.sqlite'}", free_port()
    key = json.loads(
        run_process("cloud", "init", "--account", "Fundamento", "--database-url", url, "--json", home=home)
    )["apiKey"]
    with run_in_background(*serve_arguments(home, url, port), home=home):
        eventually(lambda: _listens(port), within_s=30)
        yield f"http://127.0.0.1:{port}", key


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def ran_fundamento(home: Path, base_url: str, key: str) -> dict[str, str]:
    """What the program prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fundamento"],
        cwd=HERE,
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
    return {f"{name}{'' if place < 3 else ' says'}": told for place, (name, _, told) in enumerate(lines)}


def test_three_customers_are_provisioned_called_and_kept_apart(tmp_path: Path, nothing_left_behind: None) -> None:
    with cloud(tmp_path) as (base_url, key):
        first = ran_fundamento(tmp_path, base_url, key)
        again = ran_fundamento(tmp_path, base_url, key)
        with requests.Session() as http:
            http.headers["Authorization"] = f"Bearer {key}"
            projects = http.get(f"{base_url}/v1/projects", timeout=10).json()["projects"]
            known = {
                slug: http.get(
                    f"{base_url}/v1/voice-sdk/users",
                    headers=dict(zip(("X-Project-Id", "X-Agent-Id"), first[slug].split(", "), strict=True)),
                    timeout=10,
                ).json()["users"]
                for slug in ("acme", "beta", "gamma")
            }
    for told in (first, again):
        assert {slug: told[slug].split(", ")[0] for slug in ("acme", "beta", "gamma")} == {
            "acme": "proj_acme",
            "beta": "proj_beta",
            "gamma": "proj_gamma",
        }
        acme, beta, gamma = (told[f"{slug} says"] for slug in ("acme", "beta", "gamma"))
        assert "My boots are size nine." in acme
        assert "thirty days" in acme
        assert "My knee hurts." in beta
        assert "My knee hurts." not in acme + gamma
        assert "size nine" not in beta + gamma
        assert "thirty days" not in beta + gamma
        assert len(set(re.findall(r"\d+", told["runtimes says"]))) == 3
        assert told["shed says"] == "{'acme': {}, 'beta': {}, 'gamma': {}}"
    assert [first[slug] for slug in ("acme", "beta", "gamma")] == [again[slug] for slug in ("acme", "beta", "gamma")]
    assert sorted(each["slug"] for each in projects) == ["acme", "beta", "gamma"]
    assert all([each["userId"] for each in users] == [ALEX] for users in known.values())
    for slug in ("acme", "beta", "gamma"):
        assert (tmp_path / "storage" / f"proj_{slug}" / ALEX).is_dir()


def test_onboarding_goes_on_wherever_it_had_ended(tmp_path: Path, nothing_left_behind: None) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.sqlite'}", tmp_path) as server:
        account: Client = server.account()
        acme, beta, _ = CUSTOMERS
        account.ok("POST", "/v1/projects", {"name": acme.name, "slug": acme.slug})  # and then it was killed
        made = account.ok("POST", "/v1/projects", {"name": beta.name, "slug": beta.slug})
        agent = account.ok("POST", f"/v1/projects/{made['id']}/agents", {"name": beta.agent_name, "agentType": "voice"})
        with closing(PartnerApi(server.url, str(account.key))) as partner_api:
            table = TenantTable(tmp_path / "tenants.sqlite")
            for _ in range(2):
                assert [table.onboard(each, partner_api) for each in CUSTOMERS] == table.list_tenants()
        assert [tenant.project_id for tenant in table.list_tenants()] == ["proj_acme", "proj_beta", "proj_gamma"]
        assert table.list_tenants()[1] == Tenant("beta", made["id"], agent["id"])
        for tenant in table.list_tenants():
            agents = account.ok("GET", f"/v1/projects/{tenant.project_id}/agents")["agents"]
            assert [each["id"] for each in agents] == [tenant.agent_id]
        account.close()


def test_a_customer_that_can_not_be_provisioned_is_not_in_the_table(tmp_path: Path, nothing_left_behind: None) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.sqlite'}", tmp_path) as server:
        with closing(PartnerApi(server.url, "memoair_pk_of_nobody")) as partner_api:
            table = TenantTable(tmp_path / "tenants.sqlite")
            with pytest.raises(requests.HTTPError, match="401"):
                table.onboard(CUSTOMERS[0], partner_api)
        assert table.list_tenants() == []
    with closing(sqlite3.connect(tmp_path / "tenants.sqlite")) as opened:
        assert "memoair_pk" not in "".join(opened.iterdump())


def test_without_a_key_the_program_says_which_it_wants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEMOAIR_API_KEY", raising=False)
    monkeypatch.setenv("MEMOAIR_BASE_URL", "http://127.0.0.1:9")
    assert main() == 2
    assert "MEMOAIR_API_KEY is not set" in capsys.readouterr().err


@pytest.fixture
def new_router(tmp_path: Path, nothing_left_behind: None) -> Iterator[NewRouter]:
    """Make routers without a cloud; all are closed after the test."""
    made: list[CallRouter] = []

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
            lambda said, memory: f"{said} | {memory}",
            api_key="memoair_pk_local",
            cloud_base_url=None,
            storage_root=str(tmp_path),
            limits=TenantLimits(**limits),
        )
        made.append(router)
        return router

    yield make
    for each in made:
        each.close()


def test_a_full_pool_is_answered_without_memory_and_counted_and_others_do_not_feel_it(new_router: NewRouter) -> None:
    router = new_router(max_callers=1)
    with router.client("acme").session(user={"id": "who talks all day"}):
        router.warm_up("acme", "late")
        assert router.answer_turn("acme", "late", "Hello?") == "Hello? | "
        router.answer_turn("beta", "late", "My knee hurts.")
        assert "My knee hurts." in router.answer_turn("beta", "late", "What hurts?")
        assert router.shed_counts() == {"acme": {"pool.exhausted": 3}, "beta": {}, "gamma": {}}
    router.answer_turn("acme", "late", "My boots are size nine.")
    assert "size nine" in router.answer_turn("acme", "late", "Which size?")
    assert router.shed_counts()["acme"] == {"pool.exhausted": 3}


def test_taken_ports_are_answered_without_memory_and_counted_and_others_do_not_feel_it(new_router: NewRouter) -> None:
    first, _ = free_ports(3)
    router = new_router(ports=1, first_port=first)
    with socket.create_server(("127.0.0.1", first)):
        assert router.answer_turn("acme", "late", "Hello?") == "Hello? | "
        assert set(router.shed_counts()["acme"]) == {"pool.port_exhausted"}
        router.answer_turn("beta", "late", "My knee hurts.")
        assert "My knee hurts." in router.answer_turn("beta", "late", "What hurts?")
    assert router.shed_counts()["beta"] == {}


def test_a_call_for_nobody_is_told_so(new_router: NewRouter) -> None:
    with pytest.raises(KeyError, match="delta"):
        new_router().answer_turn("delta", "who", "Hello?")


def test_what_goes_wrong_is_told_without_words_and_callers(
    new_router: NewRouter, caplog: pytest.LogCaptureFixture
) -> None:
    router = new_router(max_callers=1)
    with router.client("acme").session(user={"id": "who talks all day"}):
        router.answer_turn("acme", "caller_of_this_test", "secret words")
    assert "customer=acme code=pool.exhausted" in caplog.text
    assert "secret words" not in caplog.text
    assert "caller_of_this_test" not in caplog.text
