"""Adding files and folders to an index."""
