"""What recall traces cost a search: the same questions with each mode, in turns, within one run.

The runtimes of all modes live at the same time over copies of the same memory, and each question goes to each of them,
in an order that changes. Between the questions is a pause, as in a call: without one, the traces beyond a rate of 20 a
second would be dropped, and their cost would not be measured.
"""

import random
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from workload import ANY_PORT, TIMEOUT_MS, Speech, save_turns, wait_until_ready, write_documents

from memoair_voice_sync import MemoAirVoiceMemorySync

MODES = ("off", "ids", "text")
_PAUSE_S = 0.06


def measure_traces(documents: int, turns: int, calls: int) -> dict[str, float]:
    """Return the median of a search with each mode, in milliseconds, and its ratio to that without traces."""
    speech = Speech()
    times_ms: dict[str, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="memoair-traces-") as folder, ExitStack() as stack:
        org_file, first = Path(folder) / "org.jsonl", Path(folder) / "off"
        write_documents(org_file, speech, documents)

        def open_memory(root: Path, mode: str) -> MemoAirVoiceMemorySync:
            return MemoAirVoiceMemorySync(
                project_id="bench",
                user_id="caller",
                runtime_url=ANY_PORT,
                storage_root=str(root),
                org_file=str(org_file),
                recall_traces=mode,
            )

        with open_memory(first, "off") as memory:
            memory.start_session({"user": {"id": "caller", "name": "Dana"}}, timeout_s=30)
            save_turns(memory, speech, turns)
            memory.end_session()
        for mode in MODES[1:]:
            shutil.copytree(first, Path(folder) / mode)
        memories = {mode: stack.enter_context(open_memory(Path(folder) / mode, mode)) for mode in MODES}
        for memory in memories.values():
            memory.start_session(timeout_s=30)
            wait_until_ready(memory, speech.sentence(5))
        order = list(MODES)
        for number in range(calls):
            question = speech.sentence(8)
            random.Random(number).shuffle(order)
            for mode in order:
                started_at = time.perf_counter()
                memories[mode].search_memory(question, timeout_ms=TIMEOUT_MS)
                times_ms[mode].append((time.perf_counter() - started_at) * 1e3)
            time.sleep(_PAUSE_S)
    medians = {mode: statistics.median(times) for mode, times in times_ms.items()}
    return {f"{mode}Ms": round(median, 3) for mode, median in medians.items()} | {
        f"{mode}Ratio": round(medians[mode] / medians["off"], 3) for mode in MODES[1:]
    }
