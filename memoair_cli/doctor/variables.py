"""The environment: proxies that calls go through, and variables of ours that nobody reads."""

import os
from collections.abc import Iterator
from difflib import get_close_matches

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, problem

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_OUR_PREFIX, _CLOUD_PREFIX = "MEMOAIR_", "MEMOAIR_CLOUD_"
# All that SDK, command line and runtime read; a test holds this against their sources. What a server reads is asked of
# its settings.
KNOWN = frozenset(
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
    """Look for proxies, and for names that are nearly right."""
    # On Windows names have no case, elsewhere programs read both.
    proxies = sorted({name for name in _PROXIES for each in (name, name.lower()) if os.environ.get(each)})
    if proxies:
        told = f"{' and '.join(proxies)} set: calls to the cloud go through a proxy, those to runtimes never do"
        yield note("proxies", told, "if the cloud is inside your network, name its host in NO_PROXY")
    unknown = sorted(name for name in os.environ if name.startswith(_OUR_PREFIX) and name not in _known())
    for name in unknown:
        meant = get_close_matches(name, _known(), n=1)
        remedy = f"write {meant[0]}" if meant else "take it away, or look for its name in docs/"
        yield problem("variables", f"{name} is set, and nobody reads it", remedy)
    if not unknown:
        ours = sum(name.startswith(_OUR_PREFIX) for name in os.environ)
        yield ok("variables", f"{ours} of ours set, all of them known" if ours else "none of ours is set")


def _known() -> set[str]:
    """The names that somebody reads. Those of a server are known only where one is installed."""
    cloud = [name for name in os.environ if name.startswith(_CLOUD_PREFIX)]
    if not cloud:
        return set(KNOWN)
    try:
        from memoair_cloud.settings import CloudSettings
    except ModuleNotFoundError:
        return {*KNOWN, *cloud}
    return {*KNOWN, *(f"{_CLOUD_PREFIX}{name.upper()}" for name in CloudSettings.model_fields)}
