"""What MkDocs does for our site besides its own: the commands describe themselves, so that the page is never behind."""

import re
import subprocess
import sys
from typing import Any

_PLACE = "[commands]"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the description of all commands in the place that a page has for it."""
    return markdown.replace(_PLACE, _described()) if _PLACE in markdown.splitlines() else markdown


def _described() -> str:
    # By Typer's own command, in a process of its own: it changes how Typer formats for whoever imports it.
    command = [sys.executable, "-m", "typer", "memoair_cli.app", "utils", "docs", "--name", "memoair"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours, and fixed
    return re.sub(r"^#", "##", told.partition("\n")[2], flags=re.MULTILINE)
