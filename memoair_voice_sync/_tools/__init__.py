"""Tools for language models, and the adapters to agent frameworks."""
