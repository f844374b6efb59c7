"""The WSGI application on eventlet's own server."""

import eventlet

eventlet.monkey_patch()  # before all other imports, as its documentation demands

import signal  # noqa: E402
import sys  # noqa: E402

import eventlet.wsgi  # noqa: E402
from servers.wsgi_app import app  # noqa: E402

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
eventlet.wsgi.server(eventlet.listen(("127.0.0.1", int(sys.argv[1]))), app, log_output=False)
