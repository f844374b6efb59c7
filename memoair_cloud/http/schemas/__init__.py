"""What goes in and comes out, as OpenAPI shows it."""
