"""The runtime: a small process that recalls and saves for one (project, user).

From the top down: the process (`main`, or forked by `fork_server`), its HTTP API (`http`), the service behind the
API (`service`), what saves turns (`memory`, on top of `storage`), what recalls them (`recall`), and the exchange with
the cloud (`sync`). All of these share the request records (`requests`), the errors (`errors`) and the settings
(`settings`).
"""
