"""The logger, which never receives the words of callers.

Below 40 lines, but all modules of the package use it.
"""

import logging
from functools import partial

from memoair_voice import integration

log = logging.getLogger("memoair_livekit")
log.addHandler(logging.NullHandler())

log_failures = partial(integration.log_failures, log)
