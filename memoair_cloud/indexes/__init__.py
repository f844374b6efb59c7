"""Indexes: a project's documents, and the index files that are built from them."""
