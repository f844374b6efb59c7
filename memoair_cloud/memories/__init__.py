"""Memories of users: consolidated from their calls, listed, corrected, deleted and erased."""
