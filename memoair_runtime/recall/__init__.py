"""Recall: the lanes, the executor that searches them under a deadline, and the context built from their answers."""
