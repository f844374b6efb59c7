"""What several tests need: real processes, and deadlines instead of sleeps."""
