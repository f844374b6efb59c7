"""The SDK's logger. It is silent unless the application configures it, and never logs what a caller said."""

import logging

log = logging.getLogger("memoair_voice")
log.addHandler(logging.NullHandler())
