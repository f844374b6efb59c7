"""Findings, what checks work on, and the checks of this machine: packages, variables, and the start of runtimes."""

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from enum import Enum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import attrs

from memoair_cli.options import PLACEHOLDER_KEY
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

_PACKAGE = "memoair-voice"
_MIN_PYTHON = (3, 10)
# "numpy>=1.24", but not the requirements of extras.
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]*\])?>=([\d.]+)$")
_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_PREFIX, _CLOUD_PREFIX = "MEMOAIR_", "MEMOAIR_CLOUD_"
# The variables that SDK, command line and runtime read; a test compares them with the sources. Those of a server come
# from its settings.
KNOWN_VARIABLES = frozenset(
    f"MEMOAIR_{name}"
    for name in (
        "API_KEY PROJECT_ID AGENT_ID USER_ID BASE_URL ORG_ONLY RECALL_TRACES SESSION_IDLE_S MCP_TOKEN PROMPT_FRESH_S "
        "ALLOW_UNPROVEN_RUNTIME "
        "RUNTIME_BINARY RUNTIME_VERSION RUNTIME_REPO RUNTIME_CACHE_DIR "
        "RUNTIME_BIND_ADDR RUNTIME_PROJECT_ID RUNTIME_WORKSPACE_ID RUNTIME_USER_ID RUNTIME_AGENT_ID RUNTIME_API_KEY "
        "RUNTIME_INTERNAL_TOKEN RUNTIME_TOKEN RUNTIME_CLOUD_BASE_URL RUNTIME_STORAGE_ROOT RUNTIME_MODE "
        "RUNTIME_ORG_FILE RUNTIME_MEDIUM_MODEL RUNTIME_OWNER_PIPE RUNTIME_SHARED RUNTIME_SESSION_ID "
        "RUNTIME_PULL_INTERVAL_S RUNTIME_RECALL_TRACES RUNTIME_RETENTION_DAYS"
    ).split()
)
# The id of project, agent and users. Nothing is sent anywhere, and the storage root is deleted afterwards.
_TEST_ID = "doctor"
_START_TIMEOUT_S = 30.0
_SEARCH_TIMEOUT_MS = 10_000.0
_REMEDY_BY_CODE = {
    "runtime.not_found": "in the checkout: pip install --force-reinstall . ; if MEMOAIR_RUNTIME_BINARY or "
    "MEMOAIR_RUNTIME_VERSION is set, it must name an existing runtime: see `memoair runtime which`",
    "pool.port_exhausted": "free some ports of the range, or give clients another runtime_port_range",
    "runtime.storage_unavailable": "free space in the folder for temporary files, or set TMPDIR",
}
_DEFAULT_REMEDY = "run `memoair demo` for more details; the message has the runtime's last output"


class FindingStatus(Enum):
    """The severity of a finding."""

    OK = "ok"
    NOTE = "note"  # not a problem, but useful to know when searching for one
    PROBLEM = "problem"


@attrs.frozen
class Finding:
    """The result of one check.

    Attributes:
        check: What was checked, such as ``storage``.
        status: The severity.
        message: What was found.
        remedy: How to fix it.
    """

    check: str
    status: FindingStatus
    message: str
    remedy: str | None = None


@attrs.frozen
class DoctorContext:
    """What the checks work on.

    Attributes:
        storage_root: The storage root.
        base_url: The URL of the cloud.
        api_key: The API key, empty if it is not set.
        project_id: The project, empty if it is not set.
        agent_id: The agent, empty if it is not set.
        database_url: The database of a server that is operated here, None to skip these checks.
        blob_url: The server's storage of index files.
        retry_failed: Whether the server retries work that failed permanently.
    """

    storage_root: Path
    base_url: str
    api_key: str = attrs.field(repr=False)
    project_id: str
    agent_id: str
    database_url: str | None = attrs.field(repr=False)
    blob_url: str | None = attrs.field(repr=False)
    retry_failed: bool = False


Check = Callable[[DoctorContext], Iterator[Finding]]


def ok(check: str, message: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check, FindingStatus.OK, message)


def note(check: str, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that is not a problem, but useful to know."""
    return Finding(check, FindingStatus.NOTE, message, remedy)


def problem(check: str, message: str, remedy: str) -> Finding:
    """Return a problem, with how to fix it."""
    return Finding(check, FindingStatus.PROBLEM, message, remedy)


def check_python(_: DoctorContext) -> Iterator[Finding]:
    """Check the version of Python."""
    message = (
        f"Python {platform.python_version()} ({platform.python_implementation()}) on {platform.platform(terse=True)}"
    )
    if sys.version_info < _MIN_PYTHON:
        yield problem("python", message, "install Python 3.10 or newer")
    else:
        yield ok("python", message)


def check_packages(_: DoctorContext) -> Iterator[Finding]:
    """Check that all required packages are installed, and their versions."""
    try:
        installed, requirements = metadata.version(_PACKAGE), metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield problem("packages", f"{_PACKAGE} is not installed; this is a source tree", "pip install .")
        return
    errors = [error for error in map(_requirement_error, requirements) if error is not None]
    if errors:
        yield problem("packages", f"{_PACKAGE} {installed}; {', '.join(errors)}", f"pip install '{_PACKAGE}>=0.4'")
    else:
        required = sum(_REQUIREMENT.fullmatch(requirement) is not None for requirement in requirements)
        yield ok("packages", f"{_PACKAGE} {installed} and the {required} packages that it requires")


def check_kernel(_: DoctorContext) -> Iterator[Finding]:
    """Check that scores are computed by the compiled kernel."""
    if find_spec("memoair_index.kernel._compiled") is not None:
        yield ok("kernel", "searches use the compiled kernel")
        return
    remedy = "install a C compiler, then in the checkout: pip install --force-reinstall ."
    yield note(
        "kernel", "the compiled kernel is not installed; searches use NumPy, which is several times slower", remedy
    )


def _requirement_error(requirement: str) -> str | None:
    """Return what is wrong with a required package, or None."""
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:  # a requirement of an extra
        return None
    name, minimum = match.groups()
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    return (
        f"{name} {installed} is older than {minimum}" if _version_tuple(installed) < _version_tuple(minimum) else None
    )


def _version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def check_variables(_: DoctorContext) -> Iterator[Finding]:
    """Check for proxies, and for variables that are set but unknown."""
    # Windows ignores the case of names. On other systems, programs read both spellings.
    proxies = sorted(
        {name for name in _PROXY_VARIABLES for spelling in (name, name.lower()) if os.environ.get(spelling)}
    )
    if proxies:
        message = f"{' and '.join(proxies)} set: requests to the cloud use a proxy, those to runtimes never do"
        yield note("proxies", message, "if the cloud is inside your network, add its host to NO_PROXY")
    unknown = sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in _known_names())
    for name in unknown:
        suggestions = get_close_matches(name, _known_names(), n=1)
        remedy = f"did you mean {suggestions[0]}?" if suggestions else "remove it, or look it up in the documentation"
        yield problem("variables", f"{name} is set but unused (a typo?)", remedy)
    if not unknown:
        count = sum(name.startswith(_PREFIX) for name in os.environ)
        yield ok("variables", f"{count} MEMOAIR_ variables set, all known" if count else "no MEMOAIR_ variables set")


def _known_names() -> set[str]:
    """Return the known variables. Those of a server are known only if the extra is installed."""
    cloud_names = [name for name in os.environ if name.startswith(_CLOUD_PREFIX)]
    if not cloud_names:
        return set(KNOWN_VARIABLES)
    try:
        from memoair_cloud.settings import CloudSettings
    except ModuleNotFoundError:
        return {*KNOWN_VARIABLES, *cloud_names}
    return {*KNOWN_VARIABLES, *(f"{_CLOUD_PREFIX}{name.upper()}" for name in CloudSettings.model_fields)}


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
