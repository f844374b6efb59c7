"""Runtime processes: which program, its environment, its start, and its end."""
