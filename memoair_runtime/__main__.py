"""``python -m memoair_runtime``: the same as the ``voice-runtime`` command."""

import sys

from memoair_runtime.main import main

sys.exit(main())
