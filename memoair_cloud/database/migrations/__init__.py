"""The history of the tables: one migration per file."""
