"""The server side of the memory: what many callers, agents and machines share."""
