"""What the cloud keeps: tables, the engine under them, and the migrations that make them."""
