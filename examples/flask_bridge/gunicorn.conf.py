"""The configuration of gunicorn: four worker processes, which share the memory of each caller."""

bind = "127.0.0.1:8000"  # behind a proxy with the certificate
workers = 4
worker_class = "gthread"
threads = 8  # fewer than BRIDGE_MAX_CALLERS, because each may use the runtime of one caller
preload_app = True  # report invalid settings once, before anything listens
timeout = 30
graceful_timeout = 20  # on a restart; requests in progress end within 15 s
keepalive = 75  # longer than the proxy keeps its connections, so that none is closed during a request
control_socket_disable = True  # newer versions create one in the home folder; it is not used here
wsgi_app = "bridge:create_app()"
