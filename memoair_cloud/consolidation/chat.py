"""The optional extractor: any chat endpoint that speaks OpenAI's protocol."""

import importlib
import logging
import time
from collections.abc import Sequence
from typing import Any

import attrs

from memoair_cloud.consolidation.prompt import INSTRUCTIONS, SCHEMA, parse_answer, render_transcript
from memoair_cloud.consolidation.records import CallTurn, Extraction, Extractor
from memoair_cloud.consolidation.rules import RuleExtractor

NAME = "chat"
log = logging.getLogger(__name__)
_RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "facts", "strict": True, "schema": SCHEMA}}


@attrs.frozen
class ChatEndpoint:
    """Where the model is asked, and how long one waits for it: ``timeout_s`` is for all attempts together."""

    base_url: str
    model: str
    api_key: str = attrs.field(repr=False)
    timeout_s: float = 60.0
    max_attempts: int = 3
    retry_delay_s: float = 0.5  # before the second attempt; doubled before each further one


class ChatExtractor:
    """Asks a language model; where that fails, another extractor (the rules), and says so in the outcome."""

    def __init__(self, endpoint: ChatEndpoint, fallback: Extractor | None = None) -> None:
        self._endpoint = endpoint
        self._fallback = fallback or RuleExtractor()

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """The facts that the turns of one session tell. Never fails."""
        if not turns:
            return Extraction((), NAME)
        try:
            return Extraction(parse_answer(self._ask_with_retries(turns), turns), NAME)
        except Exception as error:  # noqa: BLE001 - a model that fails, in whichever way, must not cost the caller his facts
            # Neither log nor outcome says more: messages of endpoints quote what was sent.
            failure = type(error).__name__
            log.warning("asking the model for facts failed (%s); %d turns go to the rules", failure, len(turns))
            extraction = self._fallback.extract(turns)
            return attrs.evolve(extraction, failure=failure)

    def _ask_with_retries(self, turns: Sequence[CallTurn]) -> str:
        """What the model answers; raises what the last attempt raised."""
        # Only who has configured a model needs the library, and it takes a second to import.
        openai = importlib.import_module("openai")
        deadline = time.monotonic() + self._endpoint.timeout_s
        endpoint = self._endpoint
        with openai.OpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0) as client:
            for attempt in range(1, endpoint.max_attempts + 1):
                try:
                    return self._ask_once(client, turns, max(deadline - time.monotonic(), 0.001))
                except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, ValueError):
                    delay_s = endpoint.retry_delay_s * 2 ** (attempt - 1)
                    if attempt == endpoint.max_attempts or time.monotonic() + delay_s >= deadline:
                        raise
                    time.sleep(delay_s)
        raise ValueError("no attempt was allowed")

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
            raise ValueError("the model has answered nothing")
        parse_answer(content, turns)  # an answer of the wrong form is worth a second attempt
        return content
