"""What an organisation knows: its documents, and the index files that are built of them."""
