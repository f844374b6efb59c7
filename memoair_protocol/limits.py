"""Limits of requests that both sides know: exceeding one on the sending side saves a round trip."""

# The body of a request to a runtime.
MAX_RUNTIME_BODY_BYTES = 1 << 20
# Turns that are saved with one request to a runtime.
MAX_TURNS = 100
# The longest spoken query has about a thousand characters; a hundred thousand are a mistake in the client's code.
MAX_QUERY_CHARS = 16_384
MAX_TOP_K = 1_000
MAX_TIMEOUT_MS = 60_000.0
# Log lines, replies and events nest what a runtime accepts a few levels deeper. JSON parsers fail at about a thousand.
MAX_RUNTIME_JSON_DEPTH = 64
MAX_CLOUD_JSON_DEPTH = 80
# An event, as a runtime sends it: the body of a request to the runtime, and what the runtime adds.
MAX_EVENT_BYTES = MAX_RUNTIME_BODY_BYTES + (64 << 10)
# A batch of events for the cloud.
MAX_EVENTS = 500
MAX_EVENTS_BYTES = 16 << 20  # 500 turns of ten minutes each have about 8 MB
# A batch of the organization's documents for the cloud.
MAX_DOCUMENTS = 100
MAX_DOCUMENTS_BYTES = 1 << 20
# Erasures that a machine may report in one request, within the limit for the body.
MAX_ERASURES = 400
# Recall traces for the cloud: one, and a batch of them.
MAX_TRACE_BYTES = 64 << 10
MAX_TRACES = 200
MAX_TRACES_BYTES = 4 << 20
# A case of an evaluation, and how many of them one request may have.
MAX_CASE_BYTES = 1 << 20
MAX_CASES = 1_000
MAX_CASES_BYTES = 16 << 20
# Outcomes of calls for the cloud: an id may have 512 bytes, and each names up to three.
MAX_OUTCOMES = 1_000
MAX_OUTCOMES_BYTES = 2 << 20
