"""The cloud server: accounts, projects, users, documents and call events, shared by many machines.

It needs the extra ``cloud``. `memoair_cloud.http.app.create_app` builds the application and `memoair_cloud.serving`
runs it.
"""
