"""``memoair doctor``: what is wrong here, and how to mend it. It never tells a key, a caller's id or a word."""
