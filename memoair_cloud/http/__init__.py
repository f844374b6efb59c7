"""The HTTP API: each route parses a request, calls one function of another package, and renders the result."""
