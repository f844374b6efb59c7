"""Calls to a runtime on this machine."""
