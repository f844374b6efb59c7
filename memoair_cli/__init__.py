"""The ``memoair`` command: the one place that may know every package."""
