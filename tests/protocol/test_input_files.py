"""Files that a user names: only regular ones are read, and no more of them than there was at first."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import memoair
from support.other_users import needs_owners

from memoair_cli.importing.batches import EventBatch
from memoair_cli.importing.state import ImportState
from memoair_index import Index
from memoair_protocol.input_files import check_regular_file, open_regular_file, read_regular_file
from memoair_runtime.org.documents import build_index
from memoair_voice_sync import MemoAirVoiceClientSync


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has a limit
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def link_to_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.fixture(params=[os.mkfifo, make_socket, link_to_endless_device], ids=["pipe", "socket", "device"])
def irregular(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Make what would be read for ever."""
    make: Callable[[Path], None] = request.param
    make(tmp_path / "calls.jsonl")
    return tmp_path / "calls.jsonl"


@needs_owners
@pytest.mark.parametrize("use", [open_regular_file, read_regular_file, check_regular_file, Index.open, build_index])
def test_what_is_no_regular_file_is_refused_at_once(use: Callable[[Path], object], irregular: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        use(irregular)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"directory|denied"):
        open_regular_file(tmp_path)


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("file")

    assert read_regular_file(tmp_path / "link") == b"x" * 100_000
    assert read_regular_file(tmp_path / "link", 7) == b"x" * 7


@pytest.mark.parametrize("how", ["read", "lines", "chunks"])
def test_a_file_that_grows_faster_than_it_is_read_ends(how: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\nsecond\n")
    with open_regular_file(path) as file, path.open("ab", buffering=0) as writer:
        content = file.read(1)
        for _ in range(100):
            writer.write(b"more\n")
        if how == "read":
            content += file.read()
        elif how == "lines":
            content += b"".join(file)
        else:
            while chunk := file.read(5):
                content += chunk
                writer.write(b"more and more\n")

    assert content == b"first\nsecond\n"


@needs_owners
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("import", "--local"), 2),
        (("import",), 2),
        (("index", "add", "policies"), 1),
        (("mcp", "--http", "--token-file"), 2),
    ],
)
def test_a_command_refuses_a_file_that_never_ends(
    arguments: tuple[str, ...], code: int, irregular: Path, tmp_path: Path
) -> None:
    environ = {
        "MEMOAIR_API_KEY": "memoair_pk_1",
        "MEMOAIR_PROJECT_ID": "p",
        "MEMOAIR_AGENT_ID": "a",
        "MEMOAIR_USER_ID": "u",
        "MEMOAIR_BASE_URL": "http://127.0.0.1:9",
        "HOME": str(tmp_path),
    }
    assert "not a regular file" in memoair(*arguments, irregular, code=code, **environ).err


@needs_owners
def test_the_documents_of_a_client_are_a_regular_file(irregular: Path) -> None:
    with pytest.raises(ValueError, match="org_file is not a file"):
        MemoAirVoiceClientSync(api_key="memoair_pk_1", project_id="p", agent_id="a", org_file=str(irregular))


@needs_owners
def test_the_state_of_an_import_is_a_regular_file(irregular: Path, tmp_path: Path) -> None:
    state = ImportState(irregular, "target")  # unreadable counts as empty

    with pytest.raises(OSError, match="not a regular file"):
        state.record(EventBatch("u", []))
