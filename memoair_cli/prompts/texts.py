"""The texts that the commands read and write: files, standard input, and versions of the cloud."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from memoair_cli.cloud_client import body_of, request, send
from memoair_cli.listings import make_printable
from memoair_cli.options import fail
from memoair_protocol.durable import write_file
from memoair_protocol.input_files import read_regular_file
from memoair_protocol.prompt_template import MAX_PROMPT_CHARS, PromptTemplateError, find_placeholders, is_prompt_label

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

PROMPTS_PATH = "/v1/voice-sdk/prompts"
LABELS_PATH = "/v1/voice-sdk/prompt-labels"
_STDIN = "-"
# A character has at most four bytes, and there may be a mark in front.
_MAX_FILE_BYTES = 4 * MAX_PROMPT_CHARS + 4


@attrs.frozen
class NamedText:
    """A text to compare.

    Attributes:
        name: What the head of a difference calls it.
        text: The text.
        is_file: Whether it is no version of the cloud.
    """

    name: str
    text: str = attrs.field(repr=False)
    is_file: bool = False


def read_text(file: str) -> str:
    """Return the text of a file, ``-`` for standard input, or exit. A mark of the byte order is no part of it."""
    name = "standard input" if file == _STDIN else file
    try:
        if file == _STDIN:
            content = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
        else:
            content = read_regular_file(Path(file), _MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(content) <= _MAX_FILE_BYTES:  # otherwise the last character may have been cut
            fail(f"{name} is not in UTF-8: the byte at {error.start:,} is invalid")
        text = ""
    except OSError as error:
        fail(f"{name} was not read: {error.strerror or error}")
    if len(content) > _MAX_FILE_BYTES or len(text) > MAX_PROMPT_CHARS:
        fail(f"{name} has more than {MAX_PROMPT_CHARS:,} characters, which is the limit for a prompt")
    return text


def check_prompt(file: str, text: str) -> None:
    """Exit unless a text can be a prompt. The cloud says the same, but does not know the file."""
    if not text.strip():
        fail(f"{'standard input' if file == _STDIN else file} is empty: a prompt has words")
    try:
        find_placeholders(text)
    except PromptTemplateError as error:
        fail(f"{file}: {error}")


def write_text(file: Path, text: str, *, overwrite: bool) -> bool:
    """Write a text to a file exactly, and return whether that changes it; exit if it has another text.

    Args:
        file: The file.
        text: The text.
        overwrite: Whether to replace another text.
    """
    content = text.encode()
    try:
        if file.exists():
            if read_regular_file(file, len(content) + 1) == content:
                return False
            if not overwrite:
                fail(f"{file} has another text; pass --force to replace it, or compare: memoair prompt diff {file}")
        write_file(file, content, durable=False, is_private=False)
    except OSError as error:
        fail(f"{file} was not written: {error.strerror or error}")
    return True


def print_text(text: str) -> None:
    """Print a text exactly, byte by byte. On a terminal, characters that could control it are spaces."""
    if sys.stdout.isatty():
        text = make_printable(text.replace("\t", "    "))
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def fetch_prompt(cloud: "CloudHttp", headers: Mapping[str, str], reference: str) -> dict[str, Any]:
    """Return the version that a number or a label stands for, or exit."""
    prompt: dict[str, Any] = request(cloud, "GET", _path_of(reference), headers)
    return prompt


def find_latest(cloud: "CloudHttp", headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the latest version, or exit if the agent has no prompt."""
    found = request(cloud, "GET", f"{PROMPTS_PATH}?limit=1", headers)["prompts"]
    if not found:
        fail("the agent has no prompt yet: push one with memoair prompt push FILE")
    return fetch_prompt(cloud, headers, str(found[0]["version"]))


def find_text(cloud: "CloudHttp", headers: Mapping[str, str], reference: str) -> NamedText:
    """Return the text that a number, a label or a file stands for, or exit.

    A label comes before a file of the same name, which can be given as ``./NAME``.
    """
    if _is_version(reference):
        return name_prompt(fetch_prompt(cloud, headers, reference))
    if is_prompt_label(reference):
        reply = send(cloud, "GET", _path_of(reference), headers)
        details = (reply.error or {}).get("details")
        # An agent or a project that is not found is not for a file to replace.
        is_unknown_label = isinstance(details, dict) and details.get("resource") == "label"
        if not (is_unknown_label and Path(reference).exists()):
            return name_prompt(body_of(cloud, reply))
    return NamedText(make_printable(reference), read_text(reference), is_file=True)


def name_prompt(prompt: Mapping[str, Any]) -> NamedText:
    """Return the text of a version with its name."""
    label = f" ({prompt['label']})" if "label" in prompt else ""
    return NamedText(f"version {prompt['version']}{label}", prompt["text"])


def label_path(name: str) -> str:
    """Return the path of a label, or exit if no label can have that name."""
    if not is_prompt_label(name):
        fail(f"{make_printable(name)!r} is no valid label: use a-z, 0-9, '.', '_' and '-', such as production", 2)
    return f"{LABELS_PATH}/{name}"


def _is_version(reference: str) -> bool:
    return reference.isascii() and reference.isdigit()


def _path_of(reference: str) -> str:
    return f"{PROMPTS_PATH}/{reference}" if _is_version(reference) else label_path(reference)
