"""The server side: accounts, projects, callers, organisations' documents, and what was said, kept for many machines.

It comes with the extra ``cloud``. `memoair_cloud.http.app.create_app` makes the application, `memoair_cloud.serving`
runs it.
"""
