"""The runtime's API as an OpenAPI document, made from the request records."""

from typing import Any

import msgspec

from memoair_runtime import errors, requests

_POSTS = {
    "session/start": (requests.StartRequest, 200),
    "search_memory": (requests.SearchRequest, 200),
    "recall_trace": (requests.RecallTraceRequest, 200),
    "turn/after": (requests.TurnRequest, 200),
    "session/end": (requests.EndRequest, 200),
    "sync/flush": (requests.DeadlineRequest, 200),
    "sync/pull": (requests.PullRequest, 200),
    "forget": (requests.ForgetRequest, 200),
}
_ENVELOPE = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "additionalProperties": False,
            "properties": {
                "code": {"enum": sorted({kind.code for kind in vars(errors).values() if hasattr(kind, "code")})},
                "message": {"type": "string", "minLength": 1},
                "details": {"type": "object"},
            },
        }
    },
}


def runtime_openapi() -> dict[str, Any]:
    """Return the document with all endpoints except shutdown."""
    request_types = [request_type for request_type, _ in _POSTS.values()]
    _, components = msgspec.json.schema_components(request_types, ref_template="#/components/schemas/{name}")
    errors_by_status = {str(status): _reply(_ENVELOPE) for status in (400, 404, 405, 409, 413)}
    paths: dict[str, Any] = {
        f"/v1/runtime/{path}": {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": f"#/components/schemas/{request_type.__name__}"}}
                    },
                },
                "responses": {str(status): _reply({"type": "object"}), **errors_by_status},
            }
        }
        for path, (request_type, status) in _POSTS.items()
    }
    paths["/v1/runtime/health"] = {"get": {"responses": {"200": _reply({"type": "object"}), **errors_by_status}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "voice-runtime", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }


def _reply(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "", "content": {"application/json": {"schema": schema}}}
