"""Readers from the bytes of a file to documents: Markdown, HTML, CSV, JSON lines and plain text."""
