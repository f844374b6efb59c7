"""Calls to the cloud's HTTP API."""
