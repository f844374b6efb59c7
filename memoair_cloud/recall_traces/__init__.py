"""Recall traces: what each search of a call found, how long it took, and what was late."""
