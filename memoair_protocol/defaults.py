"""Default values that several packages use, and names with a fixed meaning."""

CLOUD_BASE_URL = "https://backend.memoair.space"
RUNTIME_HOST, RUNTIME_PORT = "127.0.0.1", 7878
RUNTIME_URL = f"http://{RUNTIME_HOST}:{RUNTIME_PORT}"
# The first and the last port that the runtimes of a client may listen on.
RUNTIME_PORT_RANGE = (7878, 7977)
SEARCH_TIMEOUT_MS = 250
# The label of the version that callers hear, and how long the first call on a machine waits for it.
PROMPT_LABEL = "production"
PROMPT_TIMEOUT_MS = 2_000
# The user of a runtime that serves only the organization's documents.
ORG_ONLY_USER = "__org__"
# The value of ``mode`` in a session start, and of MEMOAIR_RUNTIME_MODE, for such a runtime.
ORG_ONLY_MODE = "org_only"
