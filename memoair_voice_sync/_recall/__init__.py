"""What becomes of a search after its answer: its trace, the `on_recall` hook, and spans."""
