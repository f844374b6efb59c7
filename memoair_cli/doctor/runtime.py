"""Check that runtimes start, save a turn and recall it: real ones, with a temporary storage root."""

import tempfile
import time
from collections.abc import Iterator

from memoair_cli.doctor.findings import DoctorContext, Finding, ok, problem
from memoair_cli.options import PLACEHOLDER_KEY
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

# The id of project, agent and users. Nothing is sent anywhere, and the storage root is deleted afterwards.
_TEST_ID = "doctor"
_START_TIMEOUT_S = 30.0
_SEARCH_TIMEOUT_MS = 10_000.0
_REMEDY_BY_CODE = {
    "runtime.not_found": "pip install --force-reinstall memoair-voice; if MEMOAIR_RUNTIME_BINARY or "
    "MEMOAIR_RUNTIME_VERSION is set, it must name an existing runtime: see `memoair runtime which`",
    "pool.port_exhausted": "free some ports of the range, or give clients another runtime_port_range",
    "runtime.storage_unavailable": "free space in the folder for temporary files, or set TMPDIR",
}
_DEFAULT_REMEDY = "run `memoair demo` for more details; the message has the runtime's last output"


def check_start(_: DoctorContext) -> Iterator[Finding]:
    """Start two runtimes, as a client does: the second one is forked from the fork server that the first one needs."""
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
        return problem("runtime", "a runtime starts, but does not recall a saved turn", _DEFAULT_REMEDY)
    startup = f"started in {times_ms[0]:.0f} ms, a second one in {times_ms[1]:.0f} ms"
    return ok("runtime", f"{startup}; saved a turn in {save_ms:.1f} ms and recalled it in {search_ms:.1f} ms")


def _measure_start_ms(client: MemoAirVoiceClientSync, user_id: str) -> float:
    started_at = time.perf_counter()
    client.load_index(user_id=user_id, timeout_s=_START_TIMEOUT_S)
    return (time.perf_counter() - started_at) * 1e3
