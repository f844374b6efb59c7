"""The method with which the client and the raw memory return the agent's prompt, filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import memoair_voice_sync._arguments as check
from memoair_protocol.defaults import PROMPT_LABEL, PROMPT_TIMEOUT_MS
from memoair_protocol.prompt_template import find_placeholders, render_prompt
from memoair_protocol.session_prompt import PROMPT_METADATA, describe_prompt
from memoair_voice_sync._after_fork import check_process
from memoair_voice_sync._cloud.api import CloudApi
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._prompts.prompt_file import FetchedPrompt, PromptFiles, WantedPrompt
from memoair_voice_sync._prompts.store import CLOUD_TIMEOUTS_S, PromptStore
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import Prompt


class PromptTemplate:
    """What an application asks for, and what it fills in. Immutable.

    Attributes:
        key: The label or version.
        default: The text to use if there is no other; None for none.
    """

    def __init__(self, label: str, version: int | None, values: Mapping[str, object], default: str | None) -> None:
        """Check the arguments of `PromptCalls.prompt`, also whether the default text can be filled in.

        Raises:
            ValueError: If an argument or a value is invalid.
            TypeError: If an argument or a value has the wrong type.
        """
        self.key = _parse_key(label, version)
        # None stays out, so that its placeholder counts as missing.
        given = check.mapping("values", values).items()
        self._values = {str(name): _format_value(str(name), value) for name, value in given if value is not None}
        self.default = check.optional_text("default", default)
        # A mistake in it must not wait for the day on which the cloud is away.
        self._default_text = None if self.default is None else _fill_in(self.default, self._values)

    def fill_in(self, found: FetchedPrompt, agent_id: str, *, is_stale: bool) -> Prompt:
        """Return a prompt with its placeholders filled in; raise PromptTemplateError if the values do not fit."""
        return Prompt(_fill_in(found.text, self._values), found.version, self.key.label, agent_id, is_stale=is_stale)

    def fill_in_default(self, agent_id: str | None) -> Prompt | None:
        """Return the default text, filled in; None without one."""
        if self._default_text is None:
            return None
        return Prompt(self._default_text, None, self.key.label, agent_id or "", is_stale=True)


class PromptCalls:
    """A mixin with the method `prompt`. Any thread may call it."""

    _prompts: PromptStore

    def prompt(
        self,
        /,
        label: str = PROMPT_LABEL,
        *,
        version: int | None = None,
        values: Mapping[str, object] | None = None,
        timeout_ms: float = PROMPT_TIMEOUT_MS,
        default: str | None = None,
        **placeholders: object,
    ) -> Prompt:
        """Return the agent's prompt, with its placeholders filled in.

        A text that this machine knows is returned at once, also without a network and after a restart. Once it is older
        than ``prompt_fresh_s``, the cloud is asked in the background, and the next call has the answer. Only the first
        call of a label on a machine waits for the cloud, for ``timeout_ms`` at most. Pass the prompt on to `session` or
        `load_index`: then the call and its searches say which version they had.

        The values become part of the instructions of a language model. Do not fill in what a caller has said.

        Args:
            label: The label whose version is wanted.
            version: The version that is wanted, whatever the labels say. Once fetched, it is never asked for again.
            values: The values of placeholders by name, for names that are no keywords or that this method uses itself.
            timeout_ms: How long to wait for the cloud if this machine does not know the prompt, in milliseconds.
            default: The text to fill in if there is no other: this machine does not know the prompt, and the cloud
                cannot be reached, refuses, or has none.
            **placeholders: The values of placeholders. Texts and numbers are meant; each is formatted with ``str()``.
                Those that the prompt has no placeholder for are ignored, so that a new version may do without one.

        Returns:
            The prompt. What is filled in is neither cached nor logged.

        Raises:
            ValueError: If a placeholder has no value, or one that is too long or no valid Unicode; the message names
                the placeholder, and never the value. `memoair_protocol.prompt_template.PromptTemplateError` is one.
            TypeError: If a value is bytes, a container, or of a class without a text of its own, or an argument has the
                wrong type.
            MemoAirVoiceMemoryError: This machine does not know the prompt, there is no ``default``, and the cloud
                fails: ``cloud.timeout``, ``cloud.unreachable`` (also without a cloud), ``cloud.not_found`` (there is no
                such label or version), ``cloud.unauthorized``, ``cloud.forbidden``, or another error of it. Or
                ``pool.closed``.
        """
        check_process()
        timeout_s = check.seconds("timeout_ms", timeout_ms, 1e-3)
        template = PromptTemplate(label, version, _merge(values, placeholders), default)
        agent_id = self._prompts.agent_id
        if agent_id is None:
            raise ValueError("agent_id is required: a prompt belongs to an agent")
        try:
            found, is_stale = self._prompts.get(template.key, timeout_s)
        except MemoAirVoiceMemoryError as error:
            by_default = template.fill_in_default(agent_id)
            if by_default is None or error.code == "pool.closed":
                raise
            message = "the default text of a prompt is used: action=prompt_default code=%s %s"
            log.warning(message, error.code, template.key)
            return by_default
        return template.fill_in(found, agent_id, is_stale=is_stale)

    def _find_known_prompt(self, template: "PromptTemplate") -> Prompt | None:
        """Return a prompt as this machine knows it, or the default text; None without either. Asks no cloud."""
        agent_id, known = self._prompts.agent_id, self._prompts.peek(template.key)
        if known is None or agent_id is None:
            return template.fill_in_default(agent_id)
        return template.fill_in(known, agent_id, is_stale=True)

    def _prompt_metadata(self, prompt: Prompt | None, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a call's metadata says about its prompt. Other metadata must not use the name."""
        if prompt is None:
            return {}
        if not isinstance(prompt, Prompt):
            raise TypeError(f"prompt must be a Prompt, as prompt() returns it, not {type(prompt).__name__}")
        if prompt.agent_id != self._prompts.agent_id:
            raise ValueError("prompt is that of another agent")
        if PROMPT_METADATA in metadata:
            raise ValueError(f'metadata["{PROMPT_METADATA}"] and prompt= are the same; pass prompt=')
        # The application's own text has no version.
        return {} if prompt.version is None else describe_prompt(prompt.version, prompt.label)


def make_store(
    root: Path,
    cloud_base_url: str | None,
    key: str | None,
    project_id: str,
    agent_id: str | None,
    fresh_s: float,
) -> PromptStore:
    """Return the prompts of an agent. Nothing is read or requested yet.

    Args:
        root: The storage root.
        cloud_base_url: The cloud.
        key: The key for it. Without one, there is no cloud.
        project_id: The project.
        agent_id: The agent. Without one, there is no cloud.
        fresh_s: How long a text is fresh, in seconds.
    """
    base_url = cloud_base_url if key and agent_id else None
    cloud = CloudApi(base_url, key, project_id, agent_id, max_attempts=1, timeouts_s=CLOUD_TIMEOUTS_S)
    return PromptStore(cloud, PromptFiles(root, base_url, project_id, agent_id), fresh_s)


def _parse_key(label: str, version: int | None) -> WantedPrompt:
    check.prompt_label("label", label)
    if version is None:
        return WantedPrompt(label)
    if label != PROMPT_LABEL:
        raise ValueError("label and version cannot be combined: a label points to a version")
    return WantedPrompt(None, check.count("version", version))


def _merge(values: Mapping[str, object] | None, placeholders: Mapping[str, object]) -> dict[str, object]:
    given = check.mapping("values", values)
    if twice := sorted(name for name in given if name in placeholders):
        raise ValueError(f"{', '.join(map(str, twice))}: given in values= and as an argument")
    return {**given, **placeholders}


def _format_value(name: str, value: object) -> str:
    kind = type(value)
    has_no_text = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__  # "<Caller object at 0x...>"
    if has_no_text or isinstance(value, bytes | bytearray | Mapping | list | tuple | set | frozenset):
        raise TypeError(f"the value of the placeholder {name} must be a text or a number, not {type(value).__name__}")
    failure: str | None = None
    text = ""
    try:
        text = str(value)
        text.encode()
    except UnicodeEncodeError:
        failure = "is not valid Unicode: it has half of a surrogate pair"
    except Exception as error:  # noqa: BLE001 - of the application's own class; its message may quote the value
        failure = f"cannot be formatted: str() raised {type(error).__name__}"
    if failure is not None:  # raised here, without the error, which holds the value
        raise ValueError(f"the value of the placeholder {name} {failure}")
    return text


def _fill_in(text: str, values: Mapping[str, str]) -> str:
    """Fill in a text. Values that it has no placeholder for are left out: a new version may do without one."""
    names = find_placeholders(text)
    return render_prompt(text, {name: values[name] for name in names if name in values})
