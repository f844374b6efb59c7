"""From a request to one call into the rooms beside this one, and back."""
