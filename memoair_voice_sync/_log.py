"""The SDK's logger: silent unless the application listens, and never told what a caller said."""

import logging

log = logging.getLogger("memoair_voice")
log.addHandler(logging.NullHandler())
