"""Reading files and folders into documents, and adding them to an index."""
