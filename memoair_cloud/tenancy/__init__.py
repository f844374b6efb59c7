"""Who asks, and what he may see: accounts, keys, and the scope that keeps every statement within it."""
