"""One request for a prompt, and what the reply says."""

from typing import Any
from urllib.parse import quote

import attrs

from memoair_protocol.cloud_replies import CloudReply
from memoair_protocol.prompt_template import PromptTemplateError, find_placeholders
from memoair_voice_sync._cloud.api import CloudApi, reply_error
from memoair_voice_sync._prompts.prompt_file import FetchedPrompt, WantedPrompt, hash_text, is_prompt
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_NOT_MODIFIED = 304
_INVALID = "the cloud's reply is invalid: it has no prompt of this agent"


class FetchFailedError(Exception):
    """A prompt was not fetched.

    Attributes:
        error: Why.
        retry_after_s: How long the cloud asks not to be asked again, in seconds.
    """

    def __init__(self, error: MemoAirVoiceMemoryError, retry_after_s: float = 0.0) -> None:
        super().__init__(error.code)
        self.error = error
        self.retry_after_s = retry_after_s


def fetch_prompt(cloud: CloudApi, key: WantedPrompt, known: FetchedPrompt | None, asked_at: float) -> FetchedPrompt:
    """Return a prompt as the cloud has it now.

    Args:
        cloud: The cloud, with the identity of the agent.
        key: What to fetch.
        known: What was fetched before. The cloud does not send it again if it is the same.
        asked_at: The time, in seconds since the epoch.

    Raises:
        FetchFailedError: The cloud fails, refuses, or has no such label or version.
    """
    if key.version is None:
        path = f"/v1/voice-sdk/prompt-labels/{quote(key.label or '', safe='')}"
    else:
        path = f"/v1/voice-sdk/prompts/{key.version}"
    headers = {"If-None-Match": known.etag} if known is not None and known.etag else {}
    try:
        reply = cloud.ask(path, headers)
    except MemoAirVoiceMemoryError as error:
        raise FetchFailedError(error) from error
    if reply.status == _NOT_MODIFIED and known is not None:
        return attrs.evolve(known, checked_at=asked_at)
    if reply.body is None or not reply.is_ok:
        raise FetchFailedError(reply_error(reply), reply.retry_after_s or 0.0)
    return _parse(reply, reply.body, key, cloud.agent_id, asked_at)


def _parse(
    reply: CloudReply, body: dict[str, Any], key: WantedPrompt, agent_id: str | None, asked_at: float
) -> FetchedPrompt:
    """Return the prompt of a reply. A cache in between could have returned that of another agent."""
    text: Any = body.get("text")
    version: Any = body.get("version")
    is_own = body.get("agentId") == agent_id and key.version in (None, version)
    if not (is_own and is_prompt(text, version) and body.get("sha256") == hash_text(text)):
        raise FetchFailedError(MemoAirVoiceMemoryError("cloud.internal", _INVALID, reply.status))
    try:
        find_placeholders(text)
    except PromptTemplateError as error:
        message = f"version {version} of the prompt is not valid for this version of the SDK: {error}"
        raise FetchFailedError(MemoAirVoiceMemoryError("cloud.internal", message, reply.status)) from None
    etag = reply.headers.get("ETag")
    is_sendable = etag is not None and etag.isascii() and etag.isprintable()
    return FetchedPrompt(text, version, etag if is_sendable else None, asked_at)
