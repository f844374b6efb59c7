"""The prompts that this machine has fetched: a file for each label or version that an agent has asked for.

``{storage_root}/prompts.d/CLOUD.HASH.json``, where the hash is that of project, agent, and label or version. A file has
the text as the cloud has it, with its placeholders: what an application fills in is never on the disk. It says whose
prompt it is, and is not used for another agent. It is replaced as a whole, and survives a power failure, because a
machine without a network cannot fetch it again. Nothing in it is secret; other users of the machine cannot read it.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import attrs

from memoair_protocol.durable import make_private_folders, sync_folder, write_file
from memoair_protocol.private_files import UnsafePathError, read_private_file
from memoair_protocol.prompt_template import MAX_PROMPT_CHARS
from memoair_protocol.turn_spool import cloud_part
from memoair_voice_sync._diagnostics import log

PROMPT_FOLDER = "prompts.d"  # the names of projects have no dots, see `memoair_runtime.storage.folder_names`
_FORMAT = 1
_HASH_CHARS = 32
_MAX_CLOCK_SKEW_S = 5.0
# A character of JSON has at most 12 bytes (two escapes), and the other fields are short.
_MAX_FILE_BYTES = 12 * MAX_PROMPT_CHARS + (64 << 10)


@attrs.frozen
class WantedPrompt:
    """What an application asks for: the version that a label points to, or a version.

    Attributes:
        label: The label; None if a version is asked for.
        version: The version; None if a label is asked for.
    """

    label: str | None
    version: int | None = None

    def __str__(self) -> str:
        return f"label={self.label}" if self.version is None else f"version={self.version}"


@attrs.frozen
class FetchedPrompt:
    """A version of a prompt, as the cloud has it.

    Attributes:
        text: The text, with its placeholders.
        version: Its number.
        etag: What the cloud compares with the present state; None if it gave none.
        checked_at: When the cloud was last asked, in seconds since the epoch.
    """

    text: str = attrs.field(repr=False)
    version: int
    etag: str | None
    checked_at: float


class PromptFiles:
    """The files of one agent. Safe to use from any thread, and by several processes."""

    def __init__(self, root: Path, cloud_base_url: str | None, project_id: str, agent_id: str | None) -> None:
        """Name the files. Nothing is read or written yet.

        Args:
            root: The storage root.
            cloud_base_url: The cloud that the prompts are from.
            project_id: The project.
            agent_id: The agent.
        """
        self._root = root
        self._folder = root / PROMPT_FOLDER
        self._cloud = cloud_part(cloud_base_url)
        self._owner = {"projectId": project_id, "agentId": agent_id}
        self._has_warned = False

    def read(self, key: WantedPrompt) -> FetchedPrompt | None:
        """Return what is on the disk; None without a file that can be used."""
        try:
            content = read_private_file(self._path(key), _MAX_FILE_BYTES)
            return self._parse(json.loads(content), key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self._warn("prompt_unread", error)
            return None

    def write(self, key: WantedPrompt, prompt: FetchedPrompt) -> None:
        """Keep a prompt, unless another process has asked the cloud later. A failure is only logged."""
        try:
            present = self.read(key)
            if present is not None and present.checked_at > prompt.checked_at:
                return
            make_private_folders(self._root, self._folder)
            sync_folder(self._root)
            write_file(self._path(key), json.dumps(self._record(key, prompt)).encode(), durable=True)
        except OSError as error:
            self._warn("prompt_unwritten", error)

    def _path(self, key: WantedPrompt) -> Path:
        name = json.dumps([*self._owner.values(), key.label, key.version]).encode()
        return self._folder / f"{self._cloud}.{hashlib.sha256(name).hexdigest()[:_HASH_CHARS]}.json"

    def _record(self, key: WantedPrompt, prompt: FetchedPrompt) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            **self._owner,
            "label": key.label,
            "version": prompt.version,
            "etag": prompt.etag,
            "checkedAt": prompt.checked_at,
            "sha256": hash_text(prompt.text),
            "text": prompt.text,
        }

    def _parse(self, record: Any, key: WantedPrompt) -> FetchedPrompt:
        checked_at = float(record["checkedAt"])
        if checked_at > time.time() + _MAX_CLOCK_SKEW_S:  # the clock was ahead: it is not newer than all that follows
            checked_at = 0.0
        prompt = FetchedPrompt(record["text"], record["version"], record["etag"], checked_at)
        if record != {**self._record(key, prompt), "checkedAt": record["checkedAt"]}:
            raise ValueError("another agent's, or damaged")
        if not is_prompt(prompt.text, prompt.version) or key.version not in (None, prompt.version):
            raise ValueError("damaged")
        return prompt

    def _warn(self, action: str, error: BaseException) -> None:
        """Log once what is wrong with the files. The error of a damaged file may quote it, and is not shown."""
        if self._has_warned:
            return
        self._has_warned = True
        problem = error.problem if isinstance(error, UnsafePathError) else type(error).__name__
        log.warning("a prompt cannot be kept on this machine: action=%s why=%s", action, problem)


def hash_text(text: str) -> str:
    """Return the SHA-256 of a prompt's text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def is_prompt(text: object, version: object) -> bool:
    """Return whether these can be the text and the number of a version of a prompt."""
    is_number = isinstance(version, int) and not isinstance(version, bool) and version > 0
    return is_number and isinstance(text, str) and 0 < len(text) <= MAX_PROMPT_CHARS
