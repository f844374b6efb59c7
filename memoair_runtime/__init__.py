"""The runtime: one small process that remembers for one (project, user).

From the top: the process (`process`), its HTTP surface (`http`), what it does (`service`), which is to keep what is
said (`calls`, over `storage`) and to recall it (`recall`). Beside them lies what all of these speak of: requests
(`wire`), faults, settings.
"""
