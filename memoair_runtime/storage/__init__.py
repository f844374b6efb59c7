"""What lies on the disk: folders, events, logs, and the locks beside them."""
