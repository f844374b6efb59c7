"""What was said: events as runtimes send them, and the callers and sessions that follow from them."""
