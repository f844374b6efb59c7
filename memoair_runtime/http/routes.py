"""The routes: which endpoint calls which method of the service."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import attrs

from memoair_runtime.errors import UnknownMethodError, UnknownPathError
from memoair_runtime.requests import (
    BodyParser,
    DeadlineRequest,
    EndRequest,
    ForgetRequest,
    IdentifiedRequest,
    PullRequest,
    RecallTraceRequest,
    SearchRequest,
    StartRequest,
    TurnRequest,
    TurnsRequest,
)
from memoair_runtime.service import RuntimeService

PREFIX = "/v1/runtime/"

# Sends the body of the reply: bytes as plain text, a mapping as JSON.
ReplyCallback = Callable[[Mapping[str, Any] | bytes], None]
RequestT = TypeVar("RequestT", bound=IdentifiedRequest)


@attrs.frozen
class Route:
    """One endpoint.

    Attributes:
        method: The HTTP method that it supports.
        handle: Takes the body of a request and a `ReplyCallback`, which it calls once, in any thread.
        status: HTTP status of a successful reply.
        is_public: Whether it answers without a token.
    """

    method: str
    handle: Callable[[bytes, ReplyCallback], None]
    status: HTTPStatus = HTTPStatus.OK
    is_public: bool = False


class Routes:
    """All routes of a service, by path. Thread-safe."""

    def __init__(self, service: RuntimeService) -> None:
        self._routes = {
            PREFIX + "health": Route("GET", lambda _, reply: reply(service.health()), is_public=True),
            PREFIX + "metrics": Route("GET", lambda _, reply: reply(service.metrics.render())),
            PREFIX + "session/start": _post_route(StartRequest, service.start_session),
            PREFIX + "search_memory": _search_route(service),
            PREFIX + "turn/after": _post_route(TurnRequest, service.save_turn),
            PREFIX + "turns/after": _post_route(TurnsRequest, service.save_turns),
            PREFIX + "recall_trace": _post_route(RecallTraceRequest, service.amend_trace),
            PREFIX + "session/end": _post_route(EndRequest, service.end_session),
            PREFIX + "sync/flush": _post_route(DeadlineRequest, service.flush),
            PREFIX + "sync/pull": _post_route(PullRequest, service.pull),
            PREFIX + "forget": _post_route(ForgetRequest, service.erase_user),
            PREFIX + "shutdown": _post_route(DeadlineRequest, service.shut_down, HTTPStatus.ACCEPTED),
        }

    def find(self, method: str, path: str) -> Route:
        """Return the route for a request.

        Raises:
            UnknownPathError: If the path is not an endpoint.
            UnknownMethodError: If the endpoint does not support the method.
        """
        route = self._routes.get(path)
        if route is None:
            raise UnknownPathError("unknown endpoint")
        if route.method != method:
            raise UnknownMethodError(f"method not allowed: use {route.method}", allow=route.method)
        return route

    def metric_label(self, path: str) -> str:
        """Return the label of a path in the metrics: known paths as they are, all others as one."""
        return path if path in self._routes else "unknown"


def _post_route(
    request_type: type[RequestT], handle: Callable[[RequestT], Mapping[str, Any]], status: HTTPStatus = HTTPStatus.OK
) -> Route:
    parse = BodyParser(request_type)
    return Route("POST", lambda body, reply: reply(handle(parse(body))), status)


def _search_route(service: RuntimeService) -> Route:
    parse = BodyParser(SearchRequest)
    return Route("POST", lambda body, reply: service.search_memory(parse(body), reply))
