"""The endpoints: which request goes to which method of the service."""

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
    SearchRequest,
    StartRequest,
    TurnRequest,
)
from memoair_runtime.service import RuntimeService

PREFIX = "/v1/runtime/"

# Takes the body of the answer: text goes out as it is, anything else as JSON.
Reply = Callable[[Mapping[str, Any] | bytes], None]
RequestT = TypeVar("RequestT", bound=IdentifiedRequest)


@attrs.frozen
class Route:
    """One endpoint. ``answer`` takes the body of a request and calls a `Reply`, once and in any thread."""

    method: str
    answer: Callable[[bytes, Reply], None]
    status: HTTPStatus = HTTPStatus.OK
    is_open: bool = False  # whether it answers without a token


class Routes:
    """All endpoints of a service, by path."""

    def __init__(self, service: RuntimeService) -> None:
        self._routes = {
            PREFIX + "health": Route("GET", lambda _, reply: reply(service.health()), is_open=True),
            PREFIX + "metrics": Route("GET", lambda _, reply: reply(service.metrics.text())),
            PREFIX + "session/start": _post(StartRequest, service.start_session),
            PREFIX + "search_memory": _search(service),
            PREFIX + "turn/after": _post(TurnRequest, service.after_turn),
            PREFIX + "session/end": _post(EndRequest, service.end_session),
            PREFIX + "sync/flush": _post(DeadlineRequest, service.flush),
            PREFIX + "sync/pull": _post(PullRequest, service.pull),
            PREFIX + "forget": _post(ForgetRequest, service.forget),
            PREFIX + "shutdown": _post(DeadlineRequest, service.shut_down, HTTPStatus.ACCEPTED),
        }

    def find(self, method: str, path: str) -> Route:
        """The endpoint for a request; raises `UnknownPathError` or `UnknownMethodError`."""
        route = self._routes.get(path)
        if route is None:
            raise UnknownPathError("there is no such endpoint")
        if route.method != method:
            raise UnknownMethodError(f"this endpoint takes {route.method}", allow=route.method)
        return route

    def label(self, path: str) -> str:
        """The path as metrics name it: ours as they are, everybody else's as one."""
        return path if path in self._routes else "unknown"


def _post(
    kind: type[RequestT], answer: Callable[[RequestT], Mapping[str, Any]], status: HTTPStatus = HTTPStatus.OK
) -> Route:
    parse = BodyParser(kind)
    return Route("POST", lambda body, reply: reply(answer(parse(body))), status)


def _search(service: RuntimeService) -> Route:
    parse = BodyParser(SearchRequest)
    return Route("POST", lambda body, reply: service.search_memory(parse(body), reply))
