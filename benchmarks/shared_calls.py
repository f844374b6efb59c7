"""How late a worker knows what was said to another one in the same call, which has one `session_id` on both.

The turns of a call go to two workers in turn. Workers on one machine share the user's runtime; workers on two machines
(two storage roots) share only a cloud, which is started here. First, the worker whose turn is next searches as often as
it can until it knows the last turn. Then calls go on as they do on the telephone: one search at each turn, so many
seconds after the last one was saved; the share of turns that are known by then.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cloud_servers import start_servers
from rich.console import Console
from rich.table import Table

from memoair_voice_sync import MemoAirVoiceClientSync

_POLL_S = 0.005
_TIMEOUT_MS = 10_000
_GIVE_UP_S = 60.0


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10, help="turns of a call (default: 10)")
    parser.add_argument("--calls", type=int, default=5, help="calls, each of a new caller (default: 5)")
    parser.add_argument(
        "--pauses", type=float, nargs="*", default=[1.0, 2.0, 4.0], help="seconds from turn to turn (default: 1 2 4)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    result = {}
    with (
        tempfile.TemporaryDirectory(prefix="memoair-calls-") as folder,
        start_servers(f"sqlite:///{folder}/cloud.db", Path(folder), 1) as (cloud,),
    ):
        for name, roots in (("one machine", ("a", "a")), ("two machines", ("b", "c"))):
            clients = [
                MemoAirVoiceClientSync(
                    api_key=cloud.key,
                    project_id=cloud.project_id,
                    agent_id=cloud.agent_id,
                    cloud_base_url=cloud.url,
                    storage_root=str(Path(folder, root)),
                    max_concurrent_users=50,
                )
                for root in roots
            ]
            try:
                result[name] = _measure(clients, arguments, f"{name} {{}}".format)
            finally:
                for client in clients:
                    client.close()
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result, arguments)
    return 0


def _measure(
    clients: list[MemoAirVoiceClientSync], arguments: argparse.Namespace, name: Callable[..., str]
) -> dict[str, float]:
    """Measure the calls of callers of their own: ``name`` makes the id of one."""
    late_s: list[float] = []

    def search_often(client: MemoAirVoiceClientSync, user: dict[str, str], call: str, text: str) -> None:
        saved_at = time.monotonic()
        while not _knows(client, user, call, text) and time.monotonic() < saved_at + _GIVE_UP_S:
            time.sleep(_POLL_S)
        late_s.append(time.monotonic() - saved_at)

    for number in range(arguments.calls):
        _run_call(clients, name(number), arguments.turns, search_often)
    result = {
        "median_s": statistics.median(late_s),
        "p90_s": statistics.quantiles(late_s, n=10)[-1],
        "max_s": max(late_s),
    }
    for pause_s in arguments.pauses:
        known: list[bool] = []

        def search_once(client: MemoAirVoiceClientSync, user: dict[str, str], call: str, text: str) -> None:
            time.sleep(pause_s)  # noqa: B023
            known.append(_knows(client, user, call, text))  # noqa: B023

        with ThreadPoolExecutor(arguments.calls) as threads:
            callers = [name(f"{pause_s:g} {number}") for number in range(arguments.calls)]
            list(threads.map(lambda caller: _run_call(clients, caller, arguments.turns, search_once), callers))
        result[f"known_after_{pause_s:g}_s"] = sum(known) / len(known)
    return result


def _run_call(clients: list[MemoAirVoiceClientSync], caller: str, turns: int, listen: Callable[..., None]) -> None:
    """Have a call whose turns go to the clients in turn; ``listen`` is the next one's search for what was just said."""
    user, call = {"id": caller}, "call-1"
    for turn in range(turns):
        text = f"Parcel number {turn} is late."
        clients[turn % 2].save_response(user=user, user_text=text, assistant_text="I see.", session_id=call)
        listen(clients[(turn + 1) % 2], user, call, text)
    clients[0].end_call(user=user, session_id=call)


def _knows(client: MemoAirVoiceClientSync, user: dict[str, str], call: str, text: str) -> bool:
    found = client.search_memory(text, user=user, session_id=call, lanes=["working"], timeout_ms=_TIMEOUT_MS)
    return any(text in hit["text"] for hit in found.working)


def _print(result: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    table = Table(title=f"A call of {arguments.turns} turns over two workers by session_id, {arguments.calls} calls")
    for column in ("workers on", "median", "p90", "worst", *(f"known {pause:g} s later" for pause in arguments.pauses)):
        table.add_column(column)
    for name, row in result.items():
        times = [f"{row[key]:.3f} s" for key in ("median_s", "p90_s", "max_s")]
        shares = [f"{row[f'known_after_{pause:g}_s']:.0%}" for pause in arguments.pauses]
        table.add_row(name, *times, *shares)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
