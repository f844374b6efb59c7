"""The organization's documents: where they come from, their index, their lane, and the pull from the cloud."""
