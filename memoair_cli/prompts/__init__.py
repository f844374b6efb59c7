"""The commands ``memoair prompt``: the versions of an agent's prompt, and the labels that point to them."""
