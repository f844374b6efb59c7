"""Whether a runtime can be started, keeps a turn and recalls it: a real one, over a folder that is thrown away."""

import tempfile
import time
from collections.abc import Iterator

from memoair_cli.doctor.findings import DoctorContext, Finding, ok, problem
from memoair_cli.options import PLACEHOLDER_KEY
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

# Nothing is sent anywhere, and nobody is in this memory: the folder is gone afterwards.
_TEST_ID = "doctor"
_START_TIMEOUT_S = 30.0
_SEARCH_TIMEOUT_MS = 10_000.0
_REMEDY_BY_CODE = {
    "runtime.not_found": "pip install --force-reinstall memoair-voice; MEMOAIR_RUNTIME_BINARY and "
    "MEMOAIR_RUNTIME_VERSION, where they are set, must name a runtime that is there: see `memoair runtime which`",
    "pool.port_exhausted": "free some ports of the range, or give clients another runtime_port_range",
    "runtime.storage_unavailable": "free space in the folder for temporary files, or set TMPDIR",
}
_DEFAULT_REMEDY = "run `memoair demo` to see more; what the runtime said last stands in the message"


def check_start(_: DoctorContext) -> Iterator[Finding]:
    """Start two runtimes, as a client does: the first with the host that the second is forked from."""
    with tempfile.TemporaryDirectory(prefix="memoair-doctor-", ignore_cleanup_errors=True) as folder:
        try:
            yield _try_runtimes(folder)
        except (MemoAirVoiceMemoryError, ValueError) as error:
            code = getattr(error, "code", "")
            yield problem("runtime", str(error), _REMEDY_BY_CODE.get(code, _DEFAULT_REMEDY))


def _try_runtimes(folder: str) -> Finding:
    client = MemoAirVoiceClientSync(
        api_key=PLACEHOLDER_KEY, project_id=_TEST_ID, agent_id=_TEST_ID, cloud_base_url=None, storage_root=folder
    )
    with client:
        times_ms = [_measure_start_ms(client, f"{_TEST_ID}-{number}") for number in (1, 2)]
        started_at = time.perf_counter()
        event_id = client.save_response(
            user_text="The boots are red.", assistant_text="Noted.", user_id=f"{_TEST_ID}-1"
        )
        save_ms = (time.perf_counter() - started_at) * 1e3
        started_at = time.perf_counter()
        result = client.search_memory("Which boots?", user_id=f"{_TEST_ID}-1", timeout_ms=_SEARCH_TIMEOUT_MS)
        search_ms = (time.perf_counter() - started_at) * 1e3
    if not event_id or "red" not in result.contextText:
        return problem("runtime", "a runtime starts, but does not recall what it was told", _DEFAULT_REMEDY)
    startup = f"started in {times_ms[0]:.0f} ms, the next one in {times_ms[1]:.0f} ms"
    return ok("runtime", f"{startup}; a turn kept in {save_ms:.1f} ms and recalled in {search_ms:.1f} ms")


def _measure_start_ms(client: MemoAirVoiceClientSync, user_id: str) -> float:
    started_at = time.perf_counter()
    client.load_index(user_id=user_id, timeout_s=_START_TIMEOUT_S)
    return (time.perf_counter() - started_at) * 1e3
