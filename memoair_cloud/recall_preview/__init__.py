"""What an agent would be told: a search over what the cloud knows, with the engine of the runtimes."""
