"""Where the program comes from that serves as the runtime, and that it is there in time, or is on its way."""

import threading
from typing import TYPE_CHECKING

from memoair_voice_sync._choice import RuntimeChoice, RuntimeKind, bundled_command, find_binary
from memoair_voice_sync._forks import forgets_in_child
from memoair_voice_sync._launch import RuntimeSpec

if TYPE_CHECKING:
    from memoair_voice_sync.runtimes.background import BackgroundPull

_STARTING = "the runtime is still starting"


class RuntimeSource:
    """Finds the command of a spec's runtime; what has to be pulled is pulled behind the calls.

    Safe to use from any thread, and after a fork. Whoever owns it closes it.
    """

    def __init__(self, spec: RuntimeSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._pulls: dict[RuntimeChoice, BackgroundPull] = {}
        self._is_closed = False
        forgets_in_child(self, RuntimeSource._forget)

    def command(self) -> list[str] | None:
        """The command that starts the runtime; None while it is being pulled: ask again in a moment.

        Never waits for the network. Raises ``runtime.not_found`` where there is no such runtime, and what a pull that
        failed came to: at once, for a while that grows with each failure.
        """
        choice = self._spec.choice()
        if choice.kind is RuntimeKind.BINARY:
            return [find_binary(choice.binary or "")]
        if choice.kind is RuntimeKind.BUNDLED:
            return bundled_command()
        pull = self._pull_of(choice)
        program = None if pull is None else pull.program()
        return None if program is None else [str(program)]

    def status(self) -> str:
        """Why there is no runtime yet, in words."""
        under_way = [pull for pull in list(self._pulls.values()) if pull.is_under_way]
        return under_way[-1].status() if under_way else _STARTING

    def close(self) -> None:
        """Call off what is being pulled. Twice is no harm."""
        with self._lock:
            self._is_closed = True
            pulls, self._pulls = self._pulls, {}
        for each in pulls.values():
            each.close()

    def _pull_of(self, choice: RuntimeChoice) -> "BackgroundPull | None":
        from memoair_voice_sync.runtimes.background import BackgroundPull

        with self._lock:
            if self._is_closed:
                return None
            if choice not in self._pulls:  # the first one, or the environment names another now
                self._pulls[choice] = BackgroundPull(choice.reference(), choice.cache_folder())
            return self._pulls[choice]

    def _forget(self) -> None:
        """After a fork, in the child: the threads are the parent's."""
        self._lock = threading.Lock()
        for each in self._pulls.values():
            each.forget()
