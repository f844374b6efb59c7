"""The HTTP surface: from a socket to a method of the service."""
