"""The commands that evaluate recall: suites from files, on this machine or on a server."""
