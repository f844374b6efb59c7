"""Figures of a project by agent and period."""
