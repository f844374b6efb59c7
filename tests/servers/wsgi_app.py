"""A WSGI application with a memory, for gunicorn, eventlet and uWSGI."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from servers.memory import client, recall, say


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    status, reply = "200 OK", {"pid": os.getpid()}
    try:
        if environ["PATH_INFO"] == "/say":
            reply["answer"] = say(query["user"], query["text"])
        elif environ["PATH_INFO"] == "/recall":
            reply["answer"] = recall(query["user"], query["text"])
        elif environ["PATH_INFO"] == "/runtimes":
            reply["answer"] = {each["user_id"]: each["pid"] for each in client.stats()["runtimes"]}
    except Exception as error:  # noqa: BLE001 - the test reads it
        status, reply["answer"] = "500 Failed", f"{type(error).__name__}: {error}"
    body = json.dumps(reply).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
