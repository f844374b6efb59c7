"""The examples are programs in folders of their own, which nobody installs: each begins where it lies."""

import sys
from pathlib import Path

_EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(_EXAMPLES / name) for name in ("flask_bridge", "tenants", "batch")]
