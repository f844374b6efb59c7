"""The context that an agent would get: a search over what the cloud knows, with the engine of the runtimes."""
