"""Projections that devices pull: current versions first, then a snapshot or the changes since a version."""
