"""Sync with the cloud: push of events, pull of profile, facts and documents, in one background thread."""
