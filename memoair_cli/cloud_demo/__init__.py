"""``memoair cloud demo``: a server with a month of calls of two phone lines, to look around in its dashboard.

`script` reads the talks, `planning` makes calls of them, `recording` searches and speaks them as an agent would,
`filling` brings them into a cloud, and `command` serves it.
"""
