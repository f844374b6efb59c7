"""What devices pull: versions first, then all of something or what has changed of it since a version."""
