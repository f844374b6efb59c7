"""Requests of the commands to a cloud. They exit with a message if it cannot be reached or rejects the request."""

import json
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from memoair_cli.options import fail, require_key
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.http_headers import encode_header

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp


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


def body_of(cloud: "CloudHttp", reply: CloudReply) -> Any:
    """Return the body of a reply, or exit if the cloud has rejected the request."""
    return (
        reply.body if reply.is_ok else fail(f"the cloud at {cloud.address} rejected the request: {reply.error_message}")
    )
