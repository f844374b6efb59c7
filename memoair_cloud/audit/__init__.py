"""The audit log: who read or changed what about a caller."""
