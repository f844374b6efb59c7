"""``memoair sync``: send what waits on this machine to the cloud, in the foreground."""
