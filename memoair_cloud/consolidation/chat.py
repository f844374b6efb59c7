"""The optional extractor: any OpenAI-compatible chat endpoint."""

import importlib
import logging
import time
from collections.abc import Sequence
from typing import Any

import attrs

from memoair_cloud.consolidation.prompt import INSTRUCTIONS, SCHEMA, parse_answer, render_transcript
from memoair_cloud.consolidation.records import CallTurn, Extraction, Extractor
from memoair_cloud.consolidation.rules import RuleExtractor
from memoair_protocol.backoff import Backoff

NAME = "chat"
log = logging.getLogger(__name__)
_RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "facts", "strict": True, "schema": SCHEMA}}


@attrs.frozen
class ChatEndpoint:
    """A chat endpoint and how long to wait for it.

    Attributes:
        base_url: The URL of the API.
        model: The model to ask.
        api_key: The API key.
        timeout_s: The time limit for all attempts together, in seconds.
        max_attempts: The maximum number of attempts.
        retry_delay_s: Seconds before the second attempt; doubled before each further one.
    """

    base_url: str
    model: str
    api_key: str = attrs.field(repr=False)
    timeout_s: float = 60.0
    max_attempts: int = 3
    retry_delay_s: float = 0.5


class ChatExtractor:
    """Asks a language model for facts. If that fails, it uses a fallback extractor and reports the failure.

    Args:
        endpoint: The model to ask.
        fallback: The extractor to use if the model fails; the rules by default.
    """

    def __init__(self, endpoint: ChatEndpoint, fallback: Extractor | None = None) -> None:
        self._endpoint = endpoint
        self._fallback = fallback or RuleExtractor()

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """Return the facts in the turns of one session. Never raises."""
        if not turns:
            return Extraction((), NAME)
        try:
            return Extraction(parse_answer(self._ask_with_retries(turns), turns), NAME)
        except Exception as error:  # noqa: BLE001 - no failure of a model may cost the caller their facts
            # Log and result contain only the type: messages of endpoints quote what was sent.
            failure = type(error).__name__
            log.warning(
                "the model failed to extract facts (%s); the fallback extractor reads %d turns", failure, len(turns)
            )
            extraction = self._fallback.extract(turns)
            return attrs.evolve(extraction, failure=failure)

    def _ask_with_retries(self, turns: Sequence[CallTurn]) -> str:
        """Return the model's answer; raise the error of the last attempt."""
        # Imported here, because only servers with a configured model need it, and the import takes a second.
        openai = importlib.import_module("openai")
        deadline = time.monotonic() + self._endpoint.timeout_s
        endpoint = self._endpoint
        backoff = Backoff(endpoint.retry_delay_s, max_s=endpoint.timeout_s, jitter=0)
        with openai.OpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0) as client:
            for attempt in range(1, endpoint.max_attempts + 1):
                try:
                    return self._ask_once(client, turns, max(deadline - time.monotonic(), 0.001))
                except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, ValueError):
                    delay_s = backoff.pause_s(attempt)
                    if attempt == endpoint.max_attempts or time.monotonic() + delay_s >= deadline:
                        raise
                    time.sleep(delay_s)
        raise ValueError("max_attempts must be at least 1")

    def _ask_once(self, client: Any, turns: Sequence[CallTurn], timeout_s: float) -> str:
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": render_transcript(turns)}]
        reply = client.chat.completions.create(
            model=self._endpoint.model,
            messages=messages,
            response_format=_RESPONSE_FORMAT,
            temperature=0,
            timeout=timeout_s,
        )
        content = reply.choices[0].message.content
        if not isinstance(content, str):
            raise ValueError("the model returned no text")
        parse_answer(content, turns)  # an invalid answer is worth another attempt
        return content
