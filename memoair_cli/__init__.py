"""The ``memoair`` command: the only package that may import all others."""
