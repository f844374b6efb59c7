"""Read files of strangers in a process of their own, with a limit on time and memory.

A file of a kilobyte can unpack to gigabytes, or keep a parser busy for hours. Only another process can be ended.
"""

import errno
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.reading import ReadOptions
from memoair_documents.tables import Row
from memoair_protocol.temporary import remove_abandoned_folders, temporary_folder
from memoair_protocol.threads import ThreadUnavailableError, start_thread

DEFAULT_TIMEOUT_S = 60.0
READ_PREFIX = "memoair-read-"
_EXIT_TIMEOUT_S = 10.0


class ReaderProcess:
    """A process that reads files, one after the other. It starts with the first file. Close it. Not thread-safe.

    Args:
        timeout_s: The time that one file may take, in seconds.
    """

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: Path, name: str, options: ReadOptions) -> Iterator[Row]:
        """Yield the documents of a file, as `memoair_documents.reading.read_documents` does.

        The whole file is read before the first document: an error leaves none.

        Args:
            path: The file.
            name: The name by which it is read.
            options: How to read it.

        Raises:
            UnreadableFileError: If the file cannot be read as its suffix says, has no text, or needs too much time or
                memory.
            DocumentFileError: If a line of it is invalid.
        """
        with temporary_folder(READ_PREFIX) as folder:
            output = folder / "documents.jsonl"
            request = {"path": str(path), "name": name, "output": str(output), "options": attrs.asdict(options)}
            reply = self._ask({**request, "timeoutS": self._timeout_s})
            if reply["status"] == "unreadable":
                raise UnreadableFileError(reply["message"])
            if reply["status"] == "invalid":
                raise DocumentFileError(reply["message"])
            with output.open("rb") as lines:
                for line in lines:
                    number, document = json.loads(line)
                    yield number, document

    def close(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # a request may still be in its buffer, and its reader has ended
                        pipe.close()
            process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, str]:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it was killed between two files, and the next one is not to blame
        if self._process is None:
            remove_abandoned_folders(READ_PREFIX)
            self._process = _start()
        process = self._process
        assert process.stdin is not None  # noqa: S101 - it was started with pipes
        assert process.stdout is not None  # noqa: S101
        has_timed_out, is_done = threading.Event(), threading.Event()

        def watch() -> None:
            if not is_done.wait(self._timeout_s):
                has_timed_out.set()
                process.kill()

        try:
            watcher = start_thread(watch, name="memoair-reader-watch")
        except ThreadUnavailableError as error:
            self.close()
            raise OSError(errno.EAGAIN, "no thread to watch the reader") from error
        line = b""
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            pass  # it ended: below
        finally:
            is_done.set()
            watcher.join()
        if line.endswith(b"\n"):
            reply: dict[str, str] = json.loads(line)
            return reply
        self.close()
        if has_timed_out.is_set():
            raise UnreadableFileError(f"reading it takes longer than {self._timeout_s:.0f} seconds")
        raise UnreadableFileError("reading it needs too much memory or time")


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "memoair_documents.reader_main"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # parsers quote what they cannot read
    )
