"""Prompts with named placeholders: ``Hello {{name}}``. The server checks them, and the SDK fills them in.

A single brace is text, and so is ``}}`` on its own, since prompts contain JSON. ``{{{{`` stands for two braces.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

MAX_PROMPT_CHARS = 100_000
MAX_PROMPT_VALUE_CHARS = 10_000
MAX_PROMPT_LABEL_CHARS = 64
# A label of a version, such as "production". One of digits only would look like a version.
PROMPT_LABEL_PATTERN = "^(?:[a-z]|[0-9]+[a-z._-])[a-z0-9._-]*$"
_PROMPT_LABEL = re.compile(PROMPT_LABEL_PATTERN)
_NAME = "[A-Za-z][A-Za-z0-9_]{0,63}"
# The third alternative lets a placeholder stand in braces of its own: {{{name}}} is {VALUE}. The last one is malformed.
_TOKEN = re.compile(
    rf"(?P<escaped>\{{{{4}})|\{{\{{[ \t]*(?P<name>{_NAME})[ \t]*\}}\}}"
    rf"|\{{(?=\{{\{{[ \t]*{_NAME}[ \t]*\}}\}})|(?P<malformed>\{{\{{)"
)
_MAX_LISTED_NAMES = 10


class PromptTemplateError(ValueError):
    """Raised for a prompt with a malformed placeholder, and for values that do not fit its placeholders.

    The message names the place and the placeholders. It contains neither the prompt nor a value.
    """


def find_placeholders(text: str) -> tuple[str, ...]:
    """Return the names of the placeholders of a prompt, each once, in the order of their first appearance.

    Args:
        text: The prompt. A placeholder is a name in double braces; spaces inside the braces are ignored. A name begins
            with a letter and consists of up to 64 ASCII letters, digits and ``_``. ``{{{{`` is a literal ``{{``.

    Raises:
        PromptTemplateError: If two braces are opened without a valid placeholder. The message has the line and column.

    Example:
        >>> find_placeholders("Greet {{caller}} for {{ shop }}. {{caller}} likes JSON: {{{{}}")
        ('caller', 'shop')
    """
    return tuple(dict.fromkeys(text[start:end].strip("{} \t") for start, end in locate_placeholders(text)))


def locate_placeholders(text: str) -> list[tuple[int, int]]:
    """Return where the placeholders of a prompt begin and end, in order; raises as `find_placeholders`."""
    return [match.span() for match in _find_tokens(text) if match["name"]]


def render_prompt(text: str, values: Mapping[str, object]) -> str:
    """Return a prompt with its placeholders replaced by values.

    A value is put in once, as it is: placeholders, braces and line breaks in a value are text.

    Args:
        text: The prompt, see `find_placeholders`.
        values: A value for each placeholder, and no others. What is no str is formatted with ``str()``. None counts as
            missing: an agent would say "None" to its caller. At most 10,000 characters each.

    Raises:
        PromptTemplateError: If a placeholder of the prompt is malformed, values are missing or too long, or there are
            values that the prompt has no placeholder for.

    Example:
        >>> render_prompt("Greet {{caller}}.", {"caller": "Mara"})
        'Greet Mara.'
    """
    names = find_placeholders(text)
    given = {name: str(value) for name, value in values.items() if value is not None}
    problems = [
        f"{problem}: {_list_names(found)}"
        for problem, found in (
            ("values are missing for placeholders", [name for name in names if name not in given]),
            ("the prompt has no placeholder for values", [name for name in values if name not in names]),
            (
                f"values are longer than {MAX_PROMPT_VALUE_CHARS:,} characters",
                [name for name in names if len(given.get(name, "")) > MAX_PROMPT_VALUE_CHARS],
            ),
        )
        if found
    ]
    if problems:
        raise PromptTemplateError("; ".join(problems))

    def replace(match: re.Match[str]) -> str:
        if match["name"]:
            return given[match["name"]]
        return "{{" if match["escaped"] else "{"

    return _TOKEN.sub(replace, text)


def is_prompt_label(name: str) -> bool:
    """Return whether a name is valid for a label of a prompt: up to 64 of ``a-z``, ``0-9``, ``.``, ``_`` and ``-``.

    It begins with a letter or digit, and is no number.
    """
    return len(name) <= MAX_PROMPT_LABEL_CHARS and _PROMPT_LABEL.fullmatch(name) is not None


def _find_tokens(text: str) -> Iterator[re.Match[str]]:
    for match in _TOKEN.finditer(text):
        if match["malformed"]:
            line = text.count("\n", 0, match.start()) + 1
            column = match.start() - text.rfind("\n", 0, match.start())
            raise PromptTemplateError(
                f"line {line}, column {column}: {{{{ opens no valid placeholder such as {{{{name}}}}; "
                "write {{{{ for two braces"
            )
        yield match


def _list_names(names: Iterable[str]) -> str:
    """Return names for a message. What is no valid name may be a caller's word, and is not repeated."""
    listed = [name if re.fullmatch(_NAME, name) else "(no valid name)" for name in names]
    more = len(listed) - _MAX_LISTED_NAMES
    return ", ".join(listed[:_MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
