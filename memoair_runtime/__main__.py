"""``python -m memoair_runtime``: the same as the ``voice-runtime`` command."""

import sys

from memoair_runtime.process import main

sys.exit(main())
