"""Projections that machines pull: current versions first, then a snapshot or the changes since a version."""
