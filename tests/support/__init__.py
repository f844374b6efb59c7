"""Support code of several tests: real processes, and deadlines instead of sleeps."""
