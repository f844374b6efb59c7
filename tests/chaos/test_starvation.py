"""Some seconds without descriptors or threads: documented errors and degraded answers, and nothing that stays.

The limit on descriptors is the real one. Threads are refused by a hook in each process, see support/starved.
"""

import json
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from chaos.callers import PATIENT_S, ClientProcess, count_turns_on_disk, find_marked_processes
from support.scripted_cloud import KEY, ScriptedCloud
from support.starvation import ThreadLimit, without_descriptors
from support.waiting import eventually

from memoair_protocol.errors import ERROR_CODES

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits other processes, which only Linux does"),
]

STARVED_S = 2.0
IDLE_TTL_S = 2.0
CLOSE_S = 15.0
CALLERS = ["caller-0", "caller-1"]
NEWCOMERS = ["caller-2", "caller-3"]  # who call for the first time in the middle of it
LATECOMER = "caller-4"
WORKING = {"saved", "found", "deferred", "degraded"}
# Whose descriptors or threads run out (those of the processes behind the client, its own, or of "all"), and of what.
CASES = [
    *[("behind", "descriptors", True), ("behind", "threads", False), ("client", "descriptors", False)],
    *[("client", "threads", True), ("all", "descriptors", False), ("all", "threads", True)],
]


@contextmanager
def starving(mark: Path, process: ClientProcess, shortage: str, whose: str) -> Iterator[None]:
    """Let the processes run out of something within the block, those too that begin in it."""
    client = process.process.pid
    if shortage == "threads":
        paths = {"behind": [mark / "refused-threads"], "client": [mark / "refused-client-threads"]}
        paths["all"] = paths["behind"] + paths["client"]
        for path in paths[whose]:
            path.write_text("*")
        yield
        for path in paths[whose]:
            path.unlink()
        return
    behind = [found.pid for found in find_marked_processes(mark) if found.pid != client]
    pids = {"behind": behind, "client": [client], "all": [client, *behind]}[whose]
    limit = resource.prlimit(client, resource.RLIMIT_NOFILE)
    with without_descriptors(*pids):
        yield
    for found in find_marked_processes(mark):  # a child has the limit that its parent had when it was forked
        resource.prlimit(found.pid, resource.RLIMIT_NOFILE, limit)


def read_outcomes(path: Path) -> list[dict[str, Any]]:
    """Return what became of the calls so far. The last line may not be complete yet."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


@pytest.fixture
def cloud(mark: Path, has_cloud: bool) -> Iterator[ScriptedCloud | None]:
    with ScriptedCloud() if has_cloud else nullcontext() as cloud:
        yield cloud


@pytest.mark.parametrize(("whose", "shortage", "has_cloud"), CASES)
def test_after_some_seconds_without_descriptors_or_threads_everything_is_as_before(
    new_process: Callable[..., ClientProcess],
    cloud: ScriptedCloud | None,
    storage_root: Path,
    mark: Path,
    shortage: str,
    whose: str,
) -> None:
    path, outcomes = mark / "outcomes", lambda: read_outcomes(mark / "outcomes")
    limit = ThreadLimit(mark / "refused-client-threads")
    process = new_process(
        limit.variables,
        api_key=KEY,
        cloud_base_url=cloud.url if cloud else None,
        runtime_idle_ttl_s=IDLE_TTL_S,
        max_concurrent_users=8,
    )
    for caller in CALLERS:
        assert process.save(caller, "first", "I collect stamps.")
        assert "stamps" in process.search(caller, "What do I collect?")
    process.ask("call_continuously", callers=CALLERS, newcomers=NEWCOMERS, outcomes=str(path))
    eventually(lambda: len(outcomes()) > 6, PATIENT_S)

    with starving(mark, process, shortage, whose):
        process.ask("let_newcomers_call")
        time.sleep(STARVED_S)
    count = len(outcomes())

    def all_work() -> bool:
        works = {
            (each["caller"], each["turn"] is None)
            for each in outcomes()[count:]
            if each["outcome"] in ("saved", "found")
        }
        return len(works) == 2 * len([*CALLERS, *NEWCOMERS])

    eventually(all_work, PATIENT_S)
    assert process.ask("stop_calls"), "a call does not return"
    assert process.save(LATECOMER, "first", "I grow artichokes."), "a new caller is served"
    assert "artichokes" in process.search(LATECOMER, "artichokes")

    unknown = {each["outcome"] for each in outcomes()} - WORKING - set(ERROR_CODES)
    assert not unknown, unknown
    stats = eventually(lambda: (found := process.ask("stats"))["pending_saves"] == 0 and found, PATIENT_S)
    assert stats["lost_saves"] == 0
    promised = defaultdict(list)
    for each in outcomes():
        if each["outcome"] in ("saved", "deferred") and each["turn"]:
            promised[each["caller"]].append(each["turn"])
    for caller, turn_ids in promised.items():
        on_disk = count_turns_on_disk(storage_root, caller)
        assert not set(turn_ids) - set(on_disk), f"{caller}: promised and lost"
        assert set(Counter(on_disk).values()) == {1}, f"{caller}: saved twice"
    eventually(lambda: not process.ask("stats")["runtimes"], PATIENT_S)  # idle runtimes end
    if cloud:
        for caller, turn_ids in promised.items():
            texts = [f"I say {turn_id}." for turn_id in turn_ids]
            eventually(lambda: not set(texts) - set(cloud.turn_texts(caller)), PATIENT_S)  # noqa: B023

    began_at = time.monotonic()
    process.close()
    assert time.monotonic() - began_at < CLOSE_S
    assert process.process.returncode == 0
