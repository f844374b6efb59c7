"""Calls: events as runtimes send them, and the users and sessions derived from them."""
