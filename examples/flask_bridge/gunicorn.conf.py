"""The configuration of gunicorn: four worker processes, which share the memory of each caller."""

import atexit
import os
import shutil
import tempfile

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

# The counters of all workers are in files of this folder, so that `GET /metrics` can add them up, whichever answers.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    _folder, _pid = tempfile.mkdtemp(prefix="bridge-metrics-"), os.getpid()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _folder

    @atexit.register
    def _remove_folder() -> None:
        if os.getpid() == _pid:  # not at the end of a worker
            shutil.rmtree(_folder, ignore_errors=True)
