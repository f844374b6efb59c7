"""The runtime: one small process that remembers for one (project, user).

Below everything here: the events of a call (`events`) and their log on disk (`session_log`, `user_folder`). Above it:
sessions, what the caller has said (`memory`), the lanes that recall it, the composer, and the HTTP surface.
"""
