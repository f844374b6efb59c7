"""What is known of callers: learned from their calls, told to devices, seen, corrected and forgotten."""
