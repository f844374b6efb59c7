"""Request and response bodies, as OpenAPI shows them."""
