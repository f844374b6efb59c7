"""The prompt of the agent: fetched in the background, and read from the disk."""
