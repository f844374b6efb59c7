"""Requests of the commands to a cloud. They exit with a message if it cannot be reached or rejects the request."""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from memoair_cli.options import fail, require_key
from memoair_protocol.backoff import Backoff
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.http_headers import encode_header

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_POLL_BACKOFF = Backoff(1.0, 20.0, jitter=0.5)
_MAX_POLL_FAILURES = 10
_TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def connect(base_url: str, api_key: str) -> "closing[CloudHttp]":
    """Return a connection to a cloud, for a ``with`` block."""
    from memoair_protocol.cloud_http import CloudHttp

    return closing(CloudHttp(base_url, require_key(api_key), read_timeout_s=60.0))


def post(cloud: "CloudHttp", path: str, body: Any, **headers: str) -> Any:
    """Send a body, JSON already if it is bytes, and return the body of the reply."""
    return request(cloud, "POST", path, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def request(
    cloud: "CloudHttp", method: str, path: str, headers: Mapping[str, str], content: bytes | None = None
) -> Any:
    """Send a request and return the body of the reply."""
    return body_of(cloud, send(cloud, method, path, headers, content))


def send(
    cloud: "CloudHttp", method: str, path: str, headers: Mapping[str, str], content: bytes | None = None
) -> CloudReply:
    """Send a request and return the reply, whatever it is."""
    try:
        return cloud.request(method, path, content, {name: encode_header(value) for name, value in headers.items()})
    except CloudUnreachableError as error:
        fail(f"the cloud at {cloud.address} is unreachable: {error}")


def poll(cloud: "CloudHttp", path: str, headers: Mapping[str, str]) -> Any:
    """Return the body of a GET of something that goes on at the cloud.

    A cloud that is unreachable, restarts or has too much to do is asked again, with pauses that double, for about
    two minutes.
    """
    encoded = {name: encode_header(value) for name, value in headers.items()}
    for failures in range(1, _MAX_POLL_FAILURES):
        retry_after_s = 0.0
        try:
            reply = cloud.request("GET", path, None, encoded)
        except CloudUnreachableError as error:
            if error.is_final:
                break
        else:
            is_transient = reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.status in _TRANSIENT
            if reply.is_ok or not is_transient:
                return body_of(cloud, reply)
            retry_after_s = min(reply.retry_after_s or 0.0, _POLL_BACKOFF.max_s)
        time.sleep(_POLL_BACKOFF.pause_s(failures, retry_after_s=retry_after_s))
    return request(cloud, "GET", path, headers)


def body_of(cloud: "CloudHttp", reply: CloudReply) -> Any:
    """Return the body of a reply, or exit if the cloud has rejected the request."""
    return (
        reply.body if reply.is_ok else fail(f"the cloud at {cloud.address} rejected the request: {reply.error_message}")
    )
