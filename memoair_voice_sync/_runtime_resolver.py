"""Where the program comes from that serves as the runtime, and that it is there in time, or is on its way."""

import threading
from typing import TYPE_CHECKING

from memoair_voice_sync._after_fork import forgets_in_child
from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._runtime_selection import RuntimeKind, RuntimeSelection, bundled_command, find_binary

if TYPE_CHECKING:
    from memoair_voice_sync.runtime_store.background import BackgroundPull

_STARTING = "the runtime is still starting"


class RuntimeResolver:
    """Finds the command of the runtime that was chosen; what has to be pulled is pulled behind the calls.

    Safe to use from any thread, and after a fork. Whoever owns it closes it.
    """

    def __init__(self, choice: RuntimeSelection) -> None:
        self._choice = choice
        self._lock = threading.Lock()
        self._pull: BackgroundPull | None = None
        self._is_closed = False
        forgets_in_child(self, RuntimeResolver._forget)

    @property
    def can_be_forked(self) -> bool:
        """Whether a warm host can fork it."""
        return self._choice.can_be_forked

    @property
    def has_to_be_pulled(self) -> bool:
        """Whether `command` may be None for a while."""
        return self._choice.kind is RuntimeKind.PULLED

    def command(self) -> list[str] | None:
        """The command that starts the runtime; None while it is being pulled: ask again in a moment.

        Never waits for the network. Raises ``runtime.not_found`` where there is no such runtime, and what a pull that
        failed came to: at once, for a while that grows with each failure. ``pool.closed`` after `close`.
        """
        if self._choice.kind is RuntimeKind.BINARY:
            return [find_binary(self._choice.binary or "")]
        if self._choice.kind is RuntimeKind.BUNDLED:
            return bundled_command()
        program = self._begun().program_or_start()
        return None if program is None else [str(program)]

    def status(self) -> str:
        """Why there is no runtime yet, in words."""
        pull = self._pull
        return _STARTING if pull is None or not pull.is_running else pull.status()

    def close(self) -> None:
        """Call off what is being pulled. Twice is no harm."""
        with self._lock:
            self._is_closed = True
            pull = self._pull
        if pull is not None:
            pull.close()

    def _begun(self) -> "BackgroundPull":
        from memoair_voice_sync.runtime_store.background import BackgroundPull

        with self._lock:
            if self._is_closed:
                raise MemoAirVoiceMemoryError("pool.closed", "the client has been closed")
            if self._pull is None:
                self._pull = BackgroundPull(self._choice.reference(), self._choice.cache_folder())
            return self._pull

    def _forget(self) -> None:
        """After a fork, in the child: the thread is the parent's."""
        self._lock = threading.Lock()
        if self._pull is not None:
            self._pull.reset_after_fork()
