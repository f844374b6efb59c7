"""Files on disk: folders, event logs, locks, and the files derived from the logs."""
