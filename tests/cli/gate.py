"""A proxy in front of a cloud that forwards some requests and holds the others until a test opens it."""

import threading

import urllib3
from support.loopback_server import LoopbackHandler, LoopbackServer


class Gate(LoopbackServer):
    """A proxy in front of a cloud. Until it is opened, it forwards only the first ``max_requests`` requests."""

    def __init__(self, cloud_url: str, max_requests: int) -> None:
        self.cloud_url = cloud_url
        self._remaining = max_requests
        self._lock = threading.Lock()
        self._is_open = threading.Event()
        self._pool = urllib3.PoolManager(maxsize=8, retries=False)
        super().__init__()

    def open(self) -> None:
        """Forward all requests, also those that are held."""
        self._is_open.set()

    def close(self) -> None:
        """Open it, and close it once the requests have been forwarded."""
        self.open()
        super().close()
        self._pool.clear()

    def answer(self, handler: LoopbackHandler) -> None:
        """Forward a request as soon as it may be."""
        with self._lock:
            self._remaining -= 1
            may_pass = self._remaining >= 0
        if not may_pass:
            self._is_open.wait()
        headers = {name: value.encode("latin-1") for name, value in handler.headers.items() if name != "Host"}
        reply = self._pool.request("POST", self.cloud_url + handler.path, body=handler.body, headers=headers)
        handler.reply(reply.data, reply.status, Content_Type=reply.headers.get("Content-Type", ""))
