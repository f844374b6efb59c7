"""Prompts of agents: immutable versions, and labels that move between them."""
