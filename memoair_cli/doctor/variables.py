"""Check the environment: proxies, and misspelled variables."""

import os
from collections.abc import Iterator
from difflib import get_close_matches

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, problem

_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_PREFIX, _CLOUD_PREFIX = "MEMOAIR_", "MEMOAIR_CLOUD_"
# The variables that SDK, command line and runtime read; a test compares them with the sources. Those of a server come
# from its settings.
KNOWN_VARIABLES = frozenset(
    f"MEMOAIR_{name}"
    for name in (
        "API_KEY PROJECT_ID AGENT_ID USER_ID BASE_URL ORG_ONLY SESSION_IDLE_S "
        "RUNTIME_BINARY RUNTIME_VERSION RUNTIME_REPO RUNTIME_CACHE_DIR "
        "RUNTIME_BIND_ADDR RUNTIME_PROJECT_ID RUNTIME_WORKSPACE_ID RUNTIME_USER_ID RUNTIME_AGENT_ID RUNTIME_API_KEY "
        "RUNTIME_INTERNAL_TOKEN RUNTIME_TOKEN RUNTIME_CLOUD_BASE_URL RUNTIME_STORAGE_ROOT RUNTIME_MODE "
        "RUNTIME_ORG_FILE RUNTIME_MEDIUM_MODEL RUNTIME_OWNER_PIPE RUNTIME_SHARED RUNTIME_SESSION_ID "
        "RUNTIME_PULL_INTERVAL_S"
    ).split()
)


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
