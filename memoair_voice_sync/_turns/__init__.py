"""Turns on their way to a runtime: validated, redacted, and queued while no runtime takes them."""
