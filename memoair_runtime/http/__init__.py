"""The HTTP API: from a socket to a method of the service."""
