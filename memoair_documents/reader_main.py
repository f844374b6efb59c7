"""The process of `memoair_documents.reader_process`: reads one file for each line of standard input."""

import gc
import json
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.reading import ReadOptions, read_documents
from memoair_protocol.input_files import read_regular_file

MAX_MEMORY_BYTES = 1 << 30
MAX_OUTPUT_BYTES = 512 << 20


def main() -> None:
    """Answer requests until standard input ends."""
    logging.disable()
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints is no reply
    _limit_memory()
    for line in requests:
        request = json.loads(line)
        _limit_time(request["timeoutS"])
        replies.write(json.dumps(_read(request)).encode() + b"\n")
        replies.flush()
        gc.collect()


def _read(request: dict[str, Any]) -> dict[str, str]:
    options = request["options"]
    try:
        content = read_regular_file(Path(request["path"]))
        read_options = ReadOptions(options["encoding"], tuple(options["text_columns"]), options["id_column"])
        size = 0
        with Path(request["output"]).open("wb") as output:
            for row in read_documents(request["name"], content, read_options):
                size += output.write(json.dumps(row).encode() + b"\n")
                if size > MAX_OUTPUT_BYTES:
                    raise UnreadableFileError(f"it has more than {MAX_OUTPUT_BYTES >> 20} MB of text")
    except UnreadableFileError as error:
        return {"status": "unreadable", "message": str(error)}
    except DocumentFileError as error:
        return {"status": "invalid", "message": str(error)}
    except MemoryError:
        return {"status": "unreadable", "message": "reading it needs too much memory"}
    except Exception as error:  # noqa: BLE001 - one file must not end the reading of the others
        return {"status": "unreadable", "message": f"it cannot be read ({type(error).__name__})"}
    return {"status": "ok", "message": ""}


def _limit_memory() -> None:
    """Let this process have a fixed amount of memory more than it has now, where the platform can limit it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        import psutil

        limit = psutil.Process().memory_info().vms + MAX_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_time(seconds: float) -> None:
    """End this process if one file takes too long, also after the process that started it has died."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 2, hard))


if __name__ == "__main__":
    main()
