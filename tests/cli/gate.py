"""A gate before a cloud: it lets some requests by, and holds the others until a test opens it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3


class Gate:
    """What stands before a cloud. While it is closed, whoever has more to ask than ``most`` requests can not end."""

    def __init__(self, cloud_url: str, max_requests: int) -> None:
        self.url = ""
        self.cloud_url = cloud_url
        self._remaining = max_requests
        self._lock = threading.Lock()
        self._is_open = threading.Event()

    def open(self) -> None:
        """Let by what is held, and all that comes."""
        self._is_open.set()

    def wait(self) -> None:
        """Wait until a request may go on."""
        with self._lock:
            self._remaining -= 1
            may_pass = self._remaining >= 0
        if not may_pass:
            self._is_open.wait()


@contextmanager
def gate_in_front_of(cloud_url: str, max_requests: int) -> Iterator[Gate]:
    """Serve for as long as the block lasts."""
    gate = Gate(cloud_url, max_requests)
    http = urllib3.PoolManager(maxsize=8, retries=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            gate.wait()
            headers = {name: value.encode("latin-1") for name, value in self.headers.items() if name != "Host"}
            said = http.request("POST", gate.cloud_url + self.path, body=body, headers=headers)
            with suppress(ConnectionError):  # whoever asked may have been killed meanwhile
                self.send_response(said.status)
                self.send_header("Content-Type", said.headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(said.data)))
                self.end_headers()
                self.wfile.write(said.data)

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
