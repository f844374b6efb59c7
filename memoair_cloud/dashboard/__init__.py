"""The dashboard: what agents knew and why, for the people who operate them.

Its routes are thin: they call the services that the API calls, and render templates. `page_route` admits visitors,
checks forms and shows errors, `rendering` fills the templates, and `pages` has a module for each kind of page.
"""
