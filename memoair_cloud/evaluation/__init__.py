"""Evaluation suites of agents, their runs, and replays of past calls."""
