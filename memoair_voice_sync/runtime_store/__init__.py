"""Other runtimes than the installed one: named by a reference, pulled into a cache, verified, started from there.

Nothing of this is imported until an application names a runtime: most never do.
"""
