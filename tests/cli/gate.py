"""A proxy in front of a cloud that forwards some requests and holds the others until a test opens it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3


class Gate:
    """A proxy in front of a cloud. Until it is opened, it forwards only the first ``max_requests`` requests."""

    def __init__(self, cloud_url: str, max_requests: int) -> None:
        self.url = ""
        self.cloud_url = cloud_url
        self._remaining = max_requests
        self._lock = threading.Lock()
        self._is_open = threading.Event()

    def open(self) -> None:
        """Forward all requests, also those that are held."""
        self._is_open.set()

    def wait(self) -> None:
        """Wait until a request may be forwarded."""
        with self._lock:
            self._remaining -= 1
            may_pass = self._remaining >= 0
        if not may_pass:
            self._is_open.wait()


@contextmanager
def gate_in_front_of(cloud_url: str, max_requests: int) -> Iterator[Gate]:
    """Run the proxy for the length of the block."""
    gate = Gate(cloud_url, max_requests)
    http = urllib3.PoolManager(maxsize=8, retries=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            gate.wait()
            headers = {name: value.encode("latin-1") for name, value in self.headers.items() if name != "Host"}
            reply = http.request("POST", gate.cloud_url + self.path, body=body, headers=headers)
            with suppress(ConnectionError):  # the client may have been killed
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(reply.data)))
                self.end_headers()
                self.wfile.write(reply.data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gate.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield gate
    finally:
        gate.open()
        server.shutdown()
        server.server_close()
        thread.join()
        http.clear()
