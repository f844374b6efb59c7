"""``memoair users``: find callers, export and erase their data, and place legal holds."""
