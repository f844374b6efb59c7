"""``memoair doctor``: find problems and say how to fix them. It never shows keys, callers' ids or callers' words."""
