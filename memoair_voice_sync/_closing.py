"""What the client, its sessions and the raw memory share: a ``with`` block closes them at its end."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Closeable:
    """A mixin that makes an object with a method ``close`` a context manager."""

    close: Callable[..., None]

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
