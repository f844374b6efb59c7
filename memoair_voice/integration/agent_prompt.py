"""The prompt of an agent of a framework: as this machine knows it at once, and as the cloud has it soon after.

Nothing here raises into a call. If there is no prompt, that is logged, and the default text of the application is used.
"""

import logging
from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceClient, Prompt
from memoair_voice.integration.errors import error_code
from memoair_voice_sync._prompts.calls import PromptTemplate


class PromptInstructions:
    """What an agent's instructions are made of: a label, and the values of the placeholders."""

    def __init__(
        self, label: str, *, values: Mapping[str, object] | None, default: str | None, log: logging.Logger
    ) -> None:
        """Check the arguments. Nothing is read or requested yet.

        Args:
            label: The label.
            values: The values of the placeholders.
            default: The text to use if there is no other, with placeholders of its own.
            log: Where it is logged that there is no prompt.

        Raises:
            ValueError: If an argument is invalid.
            TypeError: If an argument has the wrong type.
        """
        self._template = PromptTemplate(label, None, values or {}, default)
        self._arguments: dict[str, Any] = {"label": label, "values": dict(values or {}), "default": default}
        self._log = log

    def find_known(self, client: MemoAirVoiceClient) -> Prompt | None:
        """Return the prompt as this machine knows it, or the default text; None without either.

        Reads a file at most: fast enough for the thread of an event loop.
        """
        try:
            return client._sync._find_known_prompt(self._template)  # noqa: SLF001 - of the same distribution
        except ValueError as error:
            self._log_failure(error)
            return self._template.fill_in_default(client._sync._prompts.agent_id)  # noqa: SLF001

    async def fetch(self, client: MemoAirVoiceClient) -> Prompt | None:
        """Return the prompt, or the default text; None without either. Takes two seconds at most, the first time only.

        Args:
            client: The client of the agent.
        """
        try:
            return await client.prompt(**self._arguments)
        except Exception as error:  # noqa: BLE001 - a placeholder without a value, a closed client: the call goes on
            self._log_failure(error)
            return self._template.fill_in_default(client._sync._prompts.agent_id)  # noqa: SLF001

    def _log_failure(self, error: BaseException) -> None:
        # The message of a placeholder without a value names it, and is needed to correct the prompt.
        why = str(error) if isinstance(error, ValueError) else error_code(error)
        used = "no prompt" if self._template.default is None else "the default text"
        self._log.error("an agent has %s: action=prompt_failed why=%s", used, why)


def make_agent_prompt(
    instructions: str | None,
    label: str | None,
    values: Mapping[str, object] | None,
    default: str | None,
    log: logging.Logger,
) -> PromptInstructions | None:
    """Return the prompt that the arguments of an agent name; None if they name none.

    Raises:
        ValueError: If there are instructions as well as a label, or values or a default text without a label.
        TypeError: If an argument has the wrong type.
    """
    if label is None:
        given = {"prompt_values": values, "prompt_default": default}
        if unused := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(unused)} without prompt_label")
        return None
    if instructions is not None:
        raise ValueError(
            "instructions and prompt_label cannot be combined; pass the text for the case that there is no prompt as "
            "prompt_default"
        )
    return PromptInstructions(label, values=values, default=default, log=log)
