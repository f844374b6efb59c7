"""One guard of the code."""

from typing import NamedTuple


class Guard(NamedTuple):
    """One guard.

    Attributes:
        name: What it guards.
        file: The module that it is in.
        text: A text that is in the module exactly once.
        broken: What takes its place.
        tests: Arguments of pytest: tests of which at least one must fail then.
    """

    name: str
    file: str
    text: str
    broken: str
    tests: tuple[str, ...]
