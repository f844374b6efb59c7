"""How this distribution is installed, for messages."""


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra.

    The version excludes ``memoair-voice`` 0.3 on PyPI, which is another program. The installed version satisfies it, so
    that pip downloads the packages of the extra and nothing else, wherever this version came from.
    """
    return f"pip install 'memoair-voice[{extra}]>=0.4'"
