"""The cloud, as this machine sees it: reached, ready, with a clock like ours, and knowing who we are."""

import ipaddress
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote, urlsplit

from memoair_cli.cloud_http import CloudHttp, CloudReply, CloudUnreachableError
from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, problem
from memoair_cli.options import CLOUD, is_key

_PATIENCE_S = 10.0
# Dates of HTTP are whole seconds. Facts hold from a day, sessions end after minutes: less than this does no harm.
_MOST_SKEW_S = 30.0
_TOO_MANY, _FAULT = 429, 500
_SET_KEY = "set MEMOAIR_API_KEY to a key that `memoair cloud init` has shown"


def check_cloud(surroundings: DoctorContext) -> Iterator[Finding]:
    """Ask the cloud, step by step, until something is wrong."""
    told = surroundings
    if not told.api_key and told.base_url == CLOUD:
        yield note("cloud", "none is set (MEMOAIR_API_KEY, MEMOAIR_BASE_URL): what is said stays on this machine")
        return
    if not is_key(told.api_key):
        yield problem("key", "MEMOAIR_API_KEY holds a character that no key has", _SET_KEY)
        return
    with closing(CloudHttp(told.base_url, told.api_key or None)) as cloud:
        if _is_in_the_clear(told.base_url):
            yield problem("cloud", f"{cloud.address} is plain HTTP: keys and words can be read on the way", "use https")
        try:
            yield from _reached(cloud)
            yield from _known_there(cloud, told)
        except CloudUnreachableError as error:
            yield problem(
                "cloud", str(error), "see that the address is right and the server runs (memoair cloud serve)"
            )


def _reached(cloud: CloudHttp) -> Iterator[Finding]:
    asked_at = time.time()
    reply = cloud.call("GET", "/healthz", read_s=_PATIENCE_S)
    took_s = time.time() - asked_at
    if not reply.is_ok or (reply.body or {}).get("status") != "ok":
        raise CloudUnreachableError(
            f"{cloud.address}: {reply.problem if not reply.is_ok else 'this is no MemoAir cloud'}"
        )
    yield ok("cloud", f"{cloud.address} answers in {took_s * 1e3:.0f} ms")
    ready = cloud.call("GET", "/readyz", read_s=_PATIENCE_S)
    if ready.is_ok:
        yield ok("cloud", "it is ready: its database and its store can be used")
    else:
        remedy = "on the server: memoair doctor --database-url ..."
        yield problem("cloud", f"it is not ready: {ready.problem}", remedy)
    if reply.date_s is None:
        return
    # What was cut off of the server's second, and half of the way.
    skew_s = reply.date_s + 0.5 - (asked_at + took_s / 2)
    told = f"our clock is {abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead'}"
    if abs(skew_s) > _MOST_SKEW_S:
        yield problem("clock", told, "let NTP set the clocks of both machines; moments of turns are wrong by as much")
    else:
        yield ok("clock", "ours and the cloud's agree")


def _known_there(cloud: CloudHttp, told: DoctorContext) -> Iterator[Finding]:
    if not told.api_key:
        yield problem("key", "MEMOAIR_API_KEY is not set", _SET_KEY)
        return
    reply = cloud.call("GET", "/v1/projects", read_s=_PATIENCE_S)
    if not reply.is_ok:
        yield _refusal("key", reply, _SET_KEY)
        return
    yield ok("key", "the cloud accepts it")
    if not told.project_id:
        yield note("project", "MEMOAIR_PROJECT_ID is not set", "memoair project create NAME")
        return
    path = f"/v1/projects/{quote(told.project_id, safe='')}"
    reply = cloud.call("GET", path, read_s=_PATIENCE_S)
    if not reply.is_ok:
        remedy = "set MEMOAIR_PROJECT_ID to a project of this account; memoair project create NAME makes one"
        yield _refusal("project", reply, remedy, told.project_id)
        return
    yield ok("project", f"{told.project_id} is there")
    if told.agent_id:
        yield _agent(cloud.call("GET", f"{path}/agents", read_s=_PATIENCE_S), told.agent_id)
    else:
        yield note("agent", "MEMOAIR_AGENT_ID is not set", "memoair agent create --project ...")
    # What a runtime asks before it sends a word, in its way: with headers, and for a caller, of whom nothing is known.
    whose = {"X-Project-Id": told.project_id, "X-User-Id": "memoair-doctor"}
    reply = cloud.call("GET", "/v1/voice-sdk/bootstrap", headers=whose, read_s=_PATIENCE_S)
    if reply.is_ok:
        yield ok("bootstrap", "runtimes are told what there is to pull")
    else:
        yield _refusal("bootstrap", reply, "see that nothing between here and the cloud takes X-Project-Id away")


def _agent(reply: CloudReply, agent_id: str) -> Finding:
    agents = (reply.body or {}).get("agents")
    if not reply.is_ok or not isinstance(agents, list):
        return _refusal("agent", reply, "ask the operator of the cloud")
    if agent_id in [each.get("id") for each in agents if isinstance(each, dict)]:
        return ok("agent", f"{agent_id} is there")
    remedy = "set MEMOAIR_AGENT_ID to an agent of this project; memoair agent create makes one"
    return problem("agent", f"{agent_id} is no agent of this project", remedy)


def _refusal(check: str, reply: CloudReply, remedy: str, about: str = "") -> Finding:
    """What the cloud does not grant. ``remedy`` is for a request that was understood; else it lies with the cloud."""
    if reply.status == _TOO_MANY:
        remedy = "wait a while: this key asks more often than its cloud allows"
    elif reply.status >= _FAULT:
        remedy = "ask the operator of the cloud; its log tells why"
    return problem(check, f"{about}{about and ': '}the cloud refuses: {reply.problem}", remedy)


def _is_in_the_clear(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        is_here = False
    return base_url.lower().startswith("http://") and not is_here
