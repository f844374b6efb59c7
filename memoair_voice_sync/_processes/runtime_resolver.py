"""The command of the selected runtime, which is pulled in the background if necessary."""

import threading
from typing import TYPE_CHECKING

from memoair_voice_sync._after_fork import register_after_fork
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._processes.runtime_selection import RuntimeKind, RuntimeSelection, bundled_command, find_binary

if TYPE_CHECKING:
    from memoair_runtime_store.background import BackgroundPull

_STARTING = "the runtime is still starting"


class RuntimeResolver:
    """A resolver from the selected runtime to its command. A pull runs in the background.

    Safe to use from any thread, and after a fork. The owner closes it.
    """

    def __init__(self, selection: RuntimeSelection) -> None:
        self._selection = selection
        self._lock = threading.Lock()
        self._pull: BackgroundPull | None = None
        self._is_closed = False
        register_after_fork(self, RuntimeResolver._reset_after_fork)

    @property
    def can_be_forked(self) -> bool:
        """Whether the fork server can start the runtime."""
        return self._selection.can_be_forked

    @property
    def is_bundled(self) -> bool:
        """Whether the runtime is the installed one."""
        return self._selection.kind is RuntimeKind.BUNDLED

    @property
    def needs_pull(self) -> bool:
        """Whether the runtime must be pulled: then `command` returns None for a while."""
        return self._selection.kind is RuntimeKind.PULLED

    def command(self) -> list[str] | None:
        """Return the command that starts the runtime, or None while it is being pulled.

        Never waits for the network. Raises ``runtime.not_found`` if there is no such runtime, ``pool.closed`` after
        `close`, and the error of a failed pull: immediately, and for a time that grows with each failure.
        """
        if self._selection.kind is RuntimeKind.BINARY:
            return [find_binary(self._selection.binary or "")]
        if self._selection.kind is RuntimeKind.BUNDLED:
            return bundled_command()
        program = self._get_pull().program_or_start()
        return None if program is None else [str(program)]

    def status(self) -> str:
        """Return why there is no runtime yet, in words."""
        pull = self._pull
        return _STARTING if pull is None or not pull.is_running else pull.status()

    def close(self) -> None:
        """Cancel the pull. Calling it again has no effect."""
        with self._lock:
            self._is_closed = True
            pull = self._pull
        if pull is not None:
            pull.close()

    def _get_pull(self) -> "BackgroundPull":
        from memoair_runtime_store.background import BackgroundPull

        with self._lock:
            if self._is_closed:
                raise closed_error()
            if self._pull is None:
                self._pull = BackgroundPull(self._selection.reference(), self._selection.cache_folder())
            return self._pull

    def _reset_after_fork(self) -> None:
        """Drop the pull in the child of a fork: its thread exists only in the parent."""
        self._lock = threading.Lock()
        if self._pull is not None:
            self._pull.reset_after_fork()
