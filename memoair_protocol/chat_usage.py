"""What requests to a language model use, and what that costs."""

from typing import Any

import attrs


@attrs.define
class TokenUsage:
    """What requests to a model have used.

    Attributes:
        requests: Requests that were sent, failed ones included.
        answers: Requests that the model answered.
        unknown: Answers that did not say how many tokens they used. Nothing is estimated for them.
        prompt_tokens: Tokens that were sent, as far as they are known.
        cached_tokens: The part of them that the endpoint had in its cache.
        completion_tokens: Tokens that the model wrote, its thoughts included.
        ms: The time of all requests, in milliseconds.
    """

    requests: int = 0
    answers: int = 0
    unknown: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ms: int = 0

    def add_answer(self, reported: Any) -> None:
        """Add what an answer reports in the field ``usage`` of OpenAI's protocol; anything else is unknown."""
        self.answers += 1
        usage = reported if isinstance(reported, dict) else {}
        prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        if prompt is None or completion is None:
            self.unknown += 1
            return
        details = usage.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
        cached = _count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.cached_tokens += min(cached or 0, prompt)


@attrs.frozen
class ModelPrices:
    """The prices of a model, in any currency, for a million tokens.

    Attributes:
        prompt: For tokens that are sent.
        completion: For tokens that the model writes.
        cached: For tokens that are sent and cached; as ``prompt`` if None.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def cost_of(self, usage: TokenUsage) -> float:
        """Return the cost of the tokens that are known."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        total = fresh * self.prompt + usage.cached_tokens * cached + usage.completion_tokens * self.completion
        return total / 1_000_000


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1_000_000_000
    return value if is_count else None
