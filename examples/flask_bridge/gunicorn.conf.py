"""How gunicorn runs the bridge: four processes, which share each caller's memory, with some threads each."""

bind = "127.0.0.1:8000"  # behind a proxy that has the certificate
workers = 4
worker_class = "gthread"
threads = 8  # fewer than BRIDGE_MAX_CALLERS: each may hold a caller's memory
preload_app = True  # settings that don't fit are told once, before anything listens
timeout = 30
graceful_timeout = 20  # of a restart: what is under way ends within 15 s
keepalive = 75  # longer than the proxy keeps its connections, so that none closes under a request
control_socket_disable = True  # newer gunicorns have one in the home folder, which nobody here asks
wsgi_app = "bridge:create_app()"
