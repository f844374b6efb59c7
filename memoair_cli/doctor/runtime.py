"""Whether a runtime can be started, keeps a turn and recalls it: a real one, over a folder that is thrown away."""

import tempfile
import time
from collections.abc import Iterator

from memoair_cli.doctor.findings import DoctorContext, Finding, ok, problem
from memoair_cli.options import NO_KEY
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

# Nothing is sent anywhere, and nobody is in this memory: the folder is gone afterwards.
_WHO = "doctor"
_START_S = 30.0
_PATIENT_MS = 10_000.0
_REMEDIES = {
    "runtime.not_found": "pip install --force-reinstall memoair-voice; MEMOAIR_RUNTIME_BINARY and "
    "MEMOAIR_RUNTIME_VERSION, where they are set, must name a runtime that is there: see `memoair runtime which`",
    "pool.port_exhausted": "free some ports of the range, or give clients another runtime_port_range",
    "runtime.storage_unavailable": "free space in the folder for temporary files, or set TMPDIR",
}
_REMEDY = "run `memoair demo` to see more; what the runtime said last stands in the message"


def check_start(_: DoctorContext) -> Iterator[Finding]:
    """Start two runtimes, as a client does: the first with the host that the second is forked from."""
    with tempfile.TemporaryDirectory(prefix="memoair-doctor-", ignore_cleanup_errors=True) as folder:
        try:
            yield _tried(folder)
        except (MemoAirVoiceMemoryError, ValueError) as error:
            code = getattr(error, "code", "")
            yield problem("runtime", str(error), _REMEDIES.get(code, _REMEDY))


def _tried(folder: str) -> Finding:
    client = MemoAirVoiceClientSync(
        api_key=NO_KEY, project_id=_WHO, agent_id=_WHO, cloud_base_url=None, storage_root=folder
    )
    with client:
        times_ms = [_timed_ms(client, f"{_WHO}-{number}") for number in (1, 2)]
        began_at = time.perf_counter()
        is_kept = client.save_response(user_text="The boots are red.", assistant_text="Noted.", user_id=f"{_WHO}-1")
        save_ms = (time.perf_counter() - began_at) * 1e3
        began_at = time.perf_counter()
        found = client.search_memory("Which boots?", user_id=f"{_WHO}-1", timeout_ms=_PATIENT_MS)
        search_ms = (time.perf_counter() - began_at) * 1e3
    if not is_kept or "red" not in found.contextText:
        return problem("runtime", "a runtime starts, but does not recall what it was told", _REMEDY)
    told = f"started in {times_ms[0]:.0f} ms, the next one in {times_ms[1]:.0f} ms"
    return ok("runtime", f"{told}; a turn kept in {save_ms:.1f} ms and recalled in {search_ms:.1f} ms")


def _timed_ms(client: MemoAirVoiceClientSync, user_id: str) -> float:
    began_at = time.perf_counter()
    client.load_index(user_id=user_id, timeout_s=_START_S)
    return (time.perf_counter() - began_at) * 1e3
