"""The optional extractor: any OpenAI-compatible chat endpoint. What it says is checked against the turns."""

import logging
import time
from collections.abc import Sequence

import attrs

from memoair_cloud.consolidation.answers import ParsedAnswer, parse_answer
from memoair_cloud.consolidation.evidence import judge
from memoair_cloud.consolidation.prompt import INSTRUCTIONS, SCHEMA, SCHEMA_HINT, render_transcript, split_windows
from memoair_cloud.consolidation.records import CallTurn, Extraction, Extractor, Fact
from memoair_cloud.consolidation.rules import RuleExtractor
from memoair_cloud.consolidation.speech_gates import attribute_facts, read_turns
from memoair_cloud.consolidation.usage import ModelUsage
from memoair_protocol.chat_client import AnswerForm, ChatClient, ChatEndpoint, ChatReply, RequestTooLongError
from memoair_protocol.starvation import raise_if_starved

NAME = "chat"
_ANSWER_FORM = AnswerForm("facts", SCHEMA, SCHEMA_HINT)
log = logging.getLogger(__name__)


class ChatExtractor:
    """Asks a language model for facts, and keeps those that the turns support. Thread-safe.

    If the model fails, a fallback extractor reads the call, and the failure is reported. A call from which all
    suggestions were dropped has no facts: that is no failure.

    Args:
        endpoint: The model to ask.
        fallback: The extractor to use if the model fails; the rules by default.
    """

    def __init__(self, endpoint: ChatEndpoint, fallback: Extractor | None = None) -> None:
        self._endpoint = endpoint
        self._client = ChatClient(endpoint, _ANSWER_FORM)
        self._fallback = fallback or RuleExtractor()

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """Return the facts in the turns of one session. Raises only for want of descriptors, memory or threads."""
        if not turns:
            return Extraction((), NAME)
        usage = ModelUsage()
        try:
            return self._read_call(turns, usage)
        except Exception as error:  # noqa: BLE001 - no failure of a model may cost the caller their facts
            raise_if_starved(error)  # the model can be asked later, and the fallback would stay
            # Log and result contain only the type: messages of endpoints quote what was sent.
            failure = type(error).__name__
            log.warning(
                "the model failed to extract facts (%s); the fallback extractor reads %d turns", failure, len(turns)
            )
            return attrs.evolve(self.fall_back(turns, failure), usage=usage)

    def fall_back(self, turns: Sequence[CallTurn], failure: str) -> Extraction:
        """Return the facts that the fallback extractor finds.

        Args:
            turns: The turns of one session.
            failure: Why the model is not asked, as the name of a type of error.
        """
        return attrs.evolve(self._fallback.extract(turns), failure=failure)

    def _read_call(self, turns: Sequence[CallTurn], usage: ModelUsage) -> Extraction:
        deadline = time.monotonic() + self._endpoint.call_timeout_s
        heard = read_turns(turns)
        facts: dict[Fact, None] = {}
        denials: dict[Fact, None] = {}
        for start, stop in split_windows(turns, self._endpoint.max_chars):
            for answer, first in self._read_window(turns, start, stop, usage, deadline):
                usage.dropped.update(answer.dropped)
                for suggested in answer.facts:
                    verdict = judge(suggested, heard, first)
                    if verdict.reason is not None:
                        usage.dropped[verdict.reason.value] += 1
                    for found, kept in ((verdict.fact, facts), (verdict.denial, denials)):
                        if found is not None:
                            kept[found] = None
        voices = attribute_facts(heard, facts, denials)
        attributed, denied = voices.facts(), voices.facts(are_denials=True)
        usage.kept = len(attributed) + len(denied)
        return Extraction(attributed, NAME, denials=denied, usage=usage)

    def _read_window(
        self, turns: Sequence[CallTurn], start: int, stop: int, usage: ModelUsage, deadline: float
    ) -> list[tuple[ParsedAnswer, int]]:
        """Return what the model says of a part of a call, with where it begins. What is too long is halved."""
        is_divisible = stop - start > 1

        def read(reply: ChatReply) -> ParsedAnswer:
            if reply.is_truncated and is_divisible:
                raise RequestTooLongError
            return parse_answer(reply.content, is_truncated=reply.is_truncated)

        try:
            transcript = render_transcript(turns, start, stop)
            return [(self._client.ask(INSTRUCTIONS, transcript, usage, deadline, read), start)]
        except RequestTooLongError:
            if not is_divisible:
                raise
        middle = (start + stop) // 2
        halves = ((start, middle), (middle, stop))
        return [found for half in halves for found in self._read_window(turns, *half, usage, deadline)]
