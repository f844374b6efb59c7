"""One request to an OpenAI-compatible chat endpoint: bounded in time and size, and as rich as the endpoint allows.

The cloud asks for facts with it, and the evaluation for an answer and its grade. Needs the extra ``chat``.
"""

import importlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from memoair_protocol.backoff import Backoff
from memoair_protocol.chat_usage import TokenUsage

T = TypeVar("T")
MAX_REPLY_BYTES = 4_000_000
_NO_KEY = "none"  # the library insists on a key, which endpoints on one's own machine do not check
_TOO_LONG = re.compile(
    r"context.?(?:length|window|size)|maximum context|too (?:long|large|many tokens)|max_model_len", re.IGNORECASE
)


class ModelRefusalError(Exception):
    """The model refuses to answer: another attempt will not help."""


class ReplyTooLargeError(Exception):
    """The reply of the endpoint is larger than any answer."""


class RequestTooLongError(Exception):
    """The turns do not fit the context of the model."""


@attrs.frozen
class ChatEndpoint:
    """A chat endpoint and how long to wait for it.

    Attributes:
        base_url: The URL of the API.
        model: The model to ask.
        api_key: The API key; empty for an endpoint that needs none.
        timeout_s: The time limit for all attempts of one request together, in seconds.
        max_attempts: The maximum number of attempts.
        retry_delay_s: Seconds before the second attempt; doubled before each further one.
        max_chars: The maximum size of the turns in one request. Longer calls take several requests.
        call_timeout_s: The time limit for all requests of one call, in seconds. The worker's claim is longer.
    """

    base_url: str
    model: str
    api_key: str = attrs.field(repr=False)
    timeout_s: float = 60.0
    max_attempts: int = 3
    retry_delay_s: float = 0.5
    max_chars: int = 24_000
    call_timeout_s: float = 240.0


@attrs.frozen
class AnswerForm:
    """The JSON that an answer must consist of.

    Attributes:
        name: A name for it.
        schema: Its JSON schema.
        hint: The same in words, for endpoints that take no schema.
    """

    name: str
    schema: Mapping[str, Any]
    hint: str

    def response_formats(self) -> tuple[dict[str, Any], ...]:
        """Return what a request may ask of the endpoint, from the most to the least."""
        schema = {"name": self.name, "strict": True, "schema": self.schema}
        return (
            {"response_format": {"type": "json_schema", "json_schema": schema}},
            {"response_format": {"type": "json_object"}},
            {},
        )


@attrs.frozen
class ChatReply:
    """The text that a model answered.

    Attributes:
        content: The text.
        is_truncated: Whether the model was stopped at its limit.
    """

    content: str
    is_truncated: bool = False


@attrs.define
class _RequestForm:
    """What an endpoint has been found to accept. It only ever asks for less."""

    level: int = 0  # of the response formats
    has_temperature: bool = True  # reasoning models refuse one


class ChatClient:
    """Asks one endpoint. Thread-safe: what an endpoint does not support is remembered for all later requests.

    Args:
        endpoint: The endpoint.
        answer_form: The JSON that answers consist of. None means that they are plain text.
    """

    def __init__(self, endpoint: ChatEndpoint, answer_form: AnswerForm | None) -> None:
        self._endpoint = endpoint
        self._answer_form = answer_form
        self._response_formats = ({},) if answer_form is None else answer_form.response_formats()
        self._form = _RequestForm()
        self._lock = threading.Lock()

    def ask(
        self, instructions: str, content: str, usage: TokenUsage, deadline: float, read: Callable[[ChatReply], T]
    ) -> T:
        """Return what ``read`` makes of the model's reply.

        Args:
            instructions: What to do.
            content: What to do it with.
            usage: Counts the requests and their tokens.
            deadline: The monotonic time at which to give up.
            read: Reads a reply; a ValueError is worth another attempt.

        Raises:
            Exception: The last attempt failed, or another one would fail, too.
        """
        # Imported here, because only servers with a configured model need it, and the import takes a second.
        openai = importlib.import_module("openai")
        endpoint = self._endpoint
        deadline = min(deadline, time.monotonic() + endpoint.timeout_s)
        backoff = Backoff(endpoint.retry_delay_s, max_s=endpoint.timeout_s, jitter=0)
        bounds = _Bounds(deadline)
        # A redirect would send what callers said, and perhaps the key, to a server that the operator has not named.
        http_client = openai.DefaultHttpxClient(event_hooks={"response": [bounds.limit]}, follow_redirects=False)
        temporary = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, ValueError)
        started_at = time.monotonic()
        try:
            with openai.OpenAI(
                base_url=endpoint.base_url,
                api_key=endpoint.api_key or _NO_KEY,
                max_retries=0,
                http_client=http_client,
            ) as client:
                for attempt in range(1, endpoint.max_attempts + 1):
                    try:
                        return read(self._ask_once(openai, client, (instructions, content), usage, deadline))
                    except temporary:
                        if bounds.is_exceeded:
                            raise ReplyTooLargeError from None
                        delay_s = backoff.pause_s(attempt)
                        if attempt == endpoint.max_attempts or time.monotonic() + delay_s >= deadline:
                            raise
                        time.sleep(delay_s)
        finally:
            usage.ms += round((time.monotonic() - started_at) * 1e3)
        raise ValueError("max_attempts must be at least 1")

    def _ask_once(
        self, openai: Any, client: Any, words: tuple[str, str], usage: TokenUsage, deadline: float
    ) -> ChatReply:
        """Send a request in the richest form that the endpoint accepts."""
        while True:
            with self._lock:
                form = attrs.evolve(self._form)
            usage.requests += 1
            try:
                reply = client.chat.completions.with_raw_response.create(
                    model=self._endpoint.model,
                    messages=self._messages(*words, has_schema=form.level == 0),
                    timeout=max(deadline - time.monotonic(), 0.001),
                    **self._response_formats[form.level],
                    **({"temperature": 0} if form.has_temperature else {}),
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if _TOO_LONG.search(str(error)):
                    raise RequestTooLongError from None
                self._ask_for_less(form, str(error))
                if form == self._form or time.monotonic() >= deadline:
                    raise
                continue
            return _read_reply(reply.http_response.content, usage)

    def _ask_for_less(self, form: _RequestForm, message: str) -> None:
        """Remember that the endpoint rejects requests of a form."""
        with self._lock:
            if self._form != form:
                return  # another thread has found it out
            if form.has_temperature and ("temperature" in message or form.level == len(self._response_formats) - 1):
                self._form = _RequestForm(form.level, has_temperature=False)
            elif form.level < len(self._response_formats) - 1:
                self._form = _RequestForm(form.level + 1, form.has_temperature)

    def _messages(self, instructions: str, content: str, *, has_schema: bool) -> list[dict[str, str]]:
        # What is the same in every request comes first: endpoints cache the beginning of a prompt.
        if not has_schema and self._answer_form is not None:
            instructions = f"{instructions}\n{self._answer_form.hint}"
        return [{"role": "system", "content": instructions}, {"role": "user", "content": content}]


class _Bounds:
    """Limits the size of replies and the time of reading them: a timeout of httpx starts over with each byte."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self.is_exceeded = False

    def limit(self, response: Any) -> None:
        """Limit one response, before its body is read."""
        response.stream = _limit_stream(response.stream, self._check)

    def _check(self, size: int) -> None:
        if size > MAX_REPLY_BYTES:
            self.is_exceeded = True
            raise ReplyTooLargeError
        if time.monotonic() > self._deadline:
            raise TimeoutError


def _limit_stream(stream: Any, check: Callable[[int], None]) -> Any:
    # Newer versions of openai use httpx2, older ones httpx: the base class is taken from what is there.
    base = next(cls for cls in type(stream).__mro__ if cls.__name__ == "SyncByteStream")

    class LimitedStream(base):  # type: ignore[misc, valid-type]
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for chunk in stream:
                size += len(chunk)
                check(size)
                yield chunk

        def close(self) -> None:
            stream.close()

    return LimitedStream()


def _read_reply(body: bytes, usage: TokenUsage) -> ChatReply:
    """Return the text of a reply in OpenAI's form, as far as endpoints keep to it."""
    try:
        reply = json.loads(body)
        usage.add_answer(reply.get("usage"))
        choice = reply["choices"][0]
        message = choice["message"]
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            raise ModelRefusalError
        content = _content_of(message)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"the reply is no chat completion: {type(error).__name__}") from None
    if not content:
        raise ValueError("the model returned no text")
    return ChatReply(content, choice.get("finish_reason") == "length")


def _content_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # parts, as some endpoints send them
        content = "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))
    if isinstance(content, str) and content.strip():
        return content
    calls = message.get("tool_calls") or []
    functions = [call["function"] for call in calls] or [message.get("function_call")]
    arguments = functions[0]["arguments"] if len(functions) == 1 and functions[0] else ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)
