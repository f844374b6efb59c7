"""``memoair demo``: two callers call, call again after a crash, and are remembered."""

import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Optional

import attrs
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memoair_cli.demo_script import DemoCall, DemoScenario, DemoTurn, demo_scenarios
from memoair_voice_sync import MemoAirVoiceMemorySync, SearchResult

# A free port, chosen by the runtime, so that the demo cannot reach another runtime on this machine.
_ANY_PORT = "http://127.0.0.1:0"
# A voice agent's deadline is 250 ms. On a busy machine, the demo should be slow rather than fail to recall.
_SEARCH_TIMEOUT_MS = 2_000
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@attrs.define
class DemoTally:
    """What the demo counts for its summary."""

    expected: int = 0  # facts of an earlier call, and documents, that an answer needs
    recalled: int = 0
    acknowledged: int = 0  # turns that the runtime acknowledged
    saved: int = 0  # acknowledged turns that are in the session log exactly once
    recall_ms: list[float] = attrs.field(factory=list)

    @property
    def is_success(self) -> bool:
        """Whether every expected fact was recalled and every acknowledged turn was saved."""
        return self.recalled == self.expected and self.saved == self.acknowledged


def demo(
    storage: Annotated[
        Optional[Path],  # noqa: UP045 - Typer needs this on Python 3.10
        typer.Option(help="Keep the demo's memory in this folder, instead of deleting it.", file_okay=False),
    ] = None,
) -> None:
    """Play two callers with two calls each, kill the runtime in between, and show what is remembered.

    Needs neither a key nor a network.
    """
    raise typer.Exit(0 if play_demo(storage) else 1)


def play_demo(storage: Path | None) -> bool:
    """Play the demo. Return whether everything was remembered and nothing was lost."""
    console = Console(highlight=False)
    started_at = time.monotonic()
    tally = DemoTally()
    console.print("[dim]The agents' lines are scripted. What their memory recalls is not.[/]")
    with _storage_folder(storage) as root:
        for scenario in demo_scenarios():
            _play_scenario(console, scenario, root, tally)
        _show_summary(console, tally, root, time.monotonic() - started_at)
        if storage is None:
            console.print("[dim]The folder is deleted now; use --storage DIR to keep it.[/]")
    return tally.is_success


@contextmanager
def _storage_folder(storage: Path | None) -> Iterator[Path]:
    root = storage or Path(tempfile.mkdtemp(prefix="memoair-demo-"))
    try:
        yield root
    finally:
        if storage is None:
            shutil.rmtree(root, ignore_errors=True)


def _play_scenario(console: Console, scenario: DemoScenario, root: Path, tally: DemoTally) -> None:
    caller = escape(scenario.first.user["name"])
    console.rule(f"[bold]{escape(scenario.first.phone_line)}[/] · {caller} calls")
    with _open_memory(scenario, scenario.first, root) as memory:
        log = _play_call(console, memory, scenario.first, tally, is_verbose=False)
        _show_facts_needed_later(console, scenario)
        pid = memory.runtime_pid
        if pid is not None:
            os.kill(pid, _SIGKILL)
    console.print(f"   [red]kill -9 {pid}[/]: the runtime is gone, without end of call and without flush.")
    _count_saved(console, log, len(scenario.first.turns), tally)
    console.rule(f"[bold]{escape(scenario.first.phone_line)}[/] · {caller} calls again")
    with _open_memory(scenario, scenario.second, root) as memory:
        log = _play_call(console, memory, scenario.second, tally, is_verbose=True)
        memory.end_session()
    _count_saved(console, log, len(scenario.second.turns), tally)


def _open_memory(scenario: DemoScenario, call: DemoCall, root: Path) -> MemoAirVoiceMemorySync:
    return MemoAirVoiceMemorySync(
        project_id=call.project_id,
        user_id=call.user["id"],
        session_id=call.session_id,
        runtime_url=_ANY_PORT,
        storage_root=str(root),
        org_file=str(scenario.documents),
    )


def _play_call(
    console: Console, memory: MemoAirVoiceMemorySync, call: DemoCall, tally: DemoTally, *, is_verbose: bool
) -> Path:
    """Play one call: search before each answer and save each turn. Return the path of the session log."""
    started_at = time.monotonic()
    session = memory.start_session({"user": call.user, "assistantName": call.assistant_name}, timeout_s=15)
    ready_s = time.monotonic() - started_at
    times_ms = []
    for turn in call.turns:
        searched_at = time.perf_counter()
        result = memory.search_memory(turn.user_text, timeout_ms=_SEARCH_TIMEOUT_MS)
        times_ms.append((time.perf_counter() - searched_at) * 1e3)
        if is_verbose:
            _show_turn(console, call, turn, result, times_ms[-1], tally)
        memory.after_turn(turn.user_text, turn.assistant_text, turn.turn_id, metadata={"occurredAt": turn.occurred_at})
        tally.acknowledged += 1
    tally.recall_ms += times_ms
    log = Path(session["paths"]["sessionJsonl"])
    console.print(
        f"   {len(call.turns)} turns saved · runtime up in {ready_s * 1e3:.0f} ms"
        f" · recall {statistics.median(times_ms):.1f} ms (median) · log [cyan]{escape(str(log))}[/]",
        soft_wrap=True,
    )
    return log


def _show_turn(
    console: Console, call: DemoCall, turn: DemoTurn, result: SearchResult, duration_ms: float, tally: DemoTally
) -> None:
    console.print(f"\n[bold yellow]{escape(call.user['name'])}[/]  {escape(turn.user_text)}")
    documents = {hit["id"] for hit in result.org}
    for fact in turn.recalls:
        _show_recall(console, "permanent", fact, fact in result.contextText, tally)
    for document in turn.recalls_org:
        _show_recall(console, "org", f"document {document}", document in documents, tally)
    if not turn.recalls and not turn.recalls_org:
        best = next(iter(result.permanent or result.org or result.working), None)
        summary = shorten(" ".join(best["text"].split()), 100, placeholder=" …") if best else "nothing"
        console.print(f"   [dim]recalled  {escape(summary)}[/]")
    lane_times = " · ".join(f"{name} {lane['ms']:.2f}" for name, lane in result.trace["lanes"].items())
    console.print(f"   [dim]{lane_times} · call {duration_ms:.1f} ms[/]")
    console.print(f"[bold green]{escape(call.assistant_name)}[/]  {escape(turn.assistant_text)}")


def _show_facts_needed_later(console: Console, scenario: DemoScenario) -> None:
    """Show the sentences of the first call that the second call will need."""
    facts = [fact for turn in scenario.second.turns for fact in turn.recalls]
    caller, agent = scenario.first.user["name"], scenario.first.assistant_name
    for turn in scenario.first.turns:
        for speaker, text in ((caller, turn.user_text), (agent, turn.assistant_text)):
            if any(fact in text for fact in facts):
                console.print(f"   [dim]{escape(speaker)}: {escape(text)}[/]")


def _show_recall(console: Console, lane: str, fact: str, is_recalled: bool, tally: DemoTally) -> None:
    tally.expected += 1
    tally.recalled += is_recalled
    mark = "[green]✓[/]" if is_recalled else "[red]✗ missing[/]"
    console.print(f"   [magenta]recalled[/]  {lane}: “{escape(fact)}” {mark}")


def _count_saved(console: Console, log: Path, acknowledged: int, tally: DemoTally) -> None:
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    turn_ids = [event["payload"]["turnId"] for event in events if event["type"] == "turn"]
    saved = sum(turn_ids.count(turn_id) == 1 for turn_id in set(turn_ids))
    tally.saved += saved
    console.print(f"   [green]{saved} of {acknowledged}[/] acknowledged turns are in the session log, once each.\n")


def _show_summary(console: Console, tally: DemoTally, root: Path, seconds: float) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("facts and documents recalled where an answer needed them", f"{tally.recalled} of {tally.expected}")
    table.add_row("turns that survived a kill -9 and two hang-ups", f"{tally.saved} of {tally.acknowledged}")
    table.add_row("recall, client call to result, median", f"{statistics.median(tally.recall_ms):.2f} ms")
    table.add_row("storage folder", escape(str(root)))
    table.add_row("duration of the demo", f"{seconds:.1f} s")
    console.rule("[bold]What was remembered")
    console.print(table)
