"""Runtimes other than the installed one: resolve a reference, pull it into a cache, verify it, return its program.

This package is imported only after an application names a runtime, which most applications never do.
"""
