"""``memoair prompt``: the versions of an agent's prompt, and the labels that point to them."""

from memoair_cli.prompts.command import app as app
