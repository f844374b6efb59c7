"""A scripted endpoint with OpenAI's chat protocol."""

import json
from collections.abc import Callable
from typing import Any

from support.loopback_server import LoopbackHandler, LoopbackServer

Reply = Callable[[dict[str, Any]], tuple[int, str]]


class FakeChatServer(LoopbackServer):
    """Answers with the given replies in turn, the last one forever, and records the requests."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        super().__init__()

    def answer(self, handler: LoopbackHandler) -> None:
        """Send the next reply."""
        request = {"path": handler.path, "auth": handler.headers["Authorization"], **json.loads(handler.body)}
        self.requests.append(request)
        status, content = self.replies[min(len(self.requests), len(self.replies)) - 1](request)
        handler.reply(content.encode(errors="surrogatepass"), status, Content_Type="application/json")

    def reply_with(self, content: Any, **choice: Any) -> None:
        """Answer with a text, or with a whole message."""
        self.replies.append(lambda _: (200, completion(content, **choice)))

    def reply_with_facts(self, *facts: dict[str, Any], **choice: Any) -> None:
        self.reply_with(json.dumps({"facts": facts}), **choice)

    def reply_by(self, make: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Answer with the facts that a function makes of the turns in the request."""

        def reply(request: dict[str, Any]) -> tuple[int, str]:
            turns = json.loads(request["messages"][1]["content"])["transcript"]
            return 200, completion(json.dumps({"facts": make(turns)}))

        self.replies.append(reply)

    def send(self, body: str, status: int = 200) -> None:
        self.replies.append(lambda _: (status, body))

    def fail_with(self, status: int, message: str = "I live in Lisbon.") -> None:
        self.send(json.dumps({"error": {"message": message}}), status)

    def hang(self) -> None:
        def wait(_: dict[str, Any]) -> tuple[int, str]:
            self.closed.wait(60)
            return 200, "{}"

        self.replies.append(wait)


def completion(content: Any, usage: Any = None, **choice: Any) -> str:
    """Return a reply of the endpoint."""
    message = content if isinstance(content, dict) else {"role": "assistant", "content": content}
    choices = [{"index": 0, "finish_reason": "stop", "message": message, **choice}]
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    return json.dumps(reply | ({} if usage is None else {"usage": usage}))
