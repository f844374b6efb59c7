"""Private files: what another user of the machine prepared below a storage root is refused, and never followed."""

import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.other_users import OTHER_UID, give_away, make_shared_root, needs_owners, needs_superuser

from memoair_protocol import private_files
from memoair_protocol.durable import make_private_folders, write_file
from memoair_protocol.private_files import (
    UnsafePathError,
    check_private_folders,
    open_private_file,
    read_private_file,
    remove_private_tree,
)

pytestmark = needs_owners
SECRET = b"a file of the victim"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a storage root in which every user may create files."""
    return make_shared_root(tmp_path)


@pytest.fixture
def folder(root: Path) -> Path:
    """Return a private folder in the root."""
    make_private_folders(root, root / "project" / "user")
    return root / "project" / "user"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a file that must keep its content."""
    file = tmp_path / "victim"
    file.write_bytes(SECRET)
    return file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def append(path: Path) -> None:
    with os.fdopen(open_private_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "wb") as file:
        file.write(b"words")


def truncate(path: Path) -> None:
    os.close(open_private_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


OPENERS = pytest.mark.parametrize("use", [append, truncate, read_private_file])


def test_folders_and_files_are_created_for_this_user_only(root: Path) -> None:
    old_umask = os.umask(0)
    try:
        make_private_folders(root, root / "project" / "user")
        append(root / "project" / "log")
        write_file(root / "project" / "profile.json", b"{}", durable=True)
    finally:
        os.umask(old_umask)

    assert [mode_of(root / "project" / name) for name in ("", "user", "log", "profile.json")] == [0o700] * 2 + [
        0o600
    ] * 2
    assert not [path for path in (root / "project").iterdir() if path.name.startswith(".")]


@OPENERS
def test_a_link_in_the_place_of_a_file_is_not_followed(
    use: Callable[[Path], object], folder: Path, victim: Path
) -> None:
    (folder / "session.jsonl").symlink_to(victim)

    with pytest.raises(UnsafePathError, match="is a link") as raised:
        use(folder / "session.jsonl")

    assert raised.value.path == folder / "session.jsonl"
    assert victim.read_bytes() == SECRET


def test_a_write_replaces_a_link_and_ignores_temporary_files_of_guessable_names(folder: Path, victim: Path) -> None:
    (folder / "profile.json").symlink_to(victim)
    (folder / "profile.json.tmp").symlink_to(victim)

    write_file(folder / "profile.json", b"new", durable=False)

    assert (victim.read_bytes(), (folder / "profile.json").read_bytes()) == (SECRET, b"new")
    assert not (folder / "profile.json").is_symlink()


@pytest.mark.parametrize("depth", [0, 1])
def test_a_link_in_the_place_of_a_folder_is_not_followed(depth: int, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (target / "user").mkdir(parents=True)
    if depth:
        (root / "project").mkdir(mode=0o700)
        (root / "project" / "user").symlink_to(target)
    else:
        (root / "project").symlink_to(target)

    for use in (make_private_folders, check_private_folders):
        with pytest.raises(UnsafePathError, match="is a link"):
            use(root, root / "project" / "user")
    if depth:
        with pytest.raises(UnsafePathError, match="is a link"):
            write_file(root / "project" / "user" / "profile.json", b"new", durable=False)
    assert [path.name for path in target.rglob("*")] == ["user"]


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)

    make_private_folders(link, link / "project")
    write_file(link / "project" / "profile.json", b"new", durable=True)

    assert read_private_file(root / "project" / "profile.json") == b"new"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@OPENERS
@pytest.mark.parametrize("make", [os.mkfifo, make_socket, Path.mkdir])
def test_what_is_not_a_regular_file_is_refused_at_once(
    make: Callable[[Path], object], use: Callable[[Path], object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # the path of a socket has a limit
    make(Path("outbox.json"))

    with pytest.raises(OSError, match=r"not a regular file|directory"):
        use(folder / "outbox.json")


@needs_superuser
@OPENERS
def test_a_file_of_another_user_is_not_used(use: Callable[[Path], object], folder: Path) -> None:
    file = folder / "lease.json"
    file.write_bytes(SECRET)
    give_away(file, 0o666)

    with pytest.raises(UnsafePathError, match=f"belongs to another user .uid {OTHER_UID}.*remove it"):
        use(file)

    assert file.read_bytes() == SECRET


@needs_superuser
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_a_folder_of_another_user_is_not_used(mode: int, root: Path) -> None:
    folder = root / "project"
    folder.mkdir()
    give_away(folder, mode)

    with pytest.raises(UnsafePathError, match="belongs to another user"):
        make_private_folders(root, folder / "user")
    for use in (append, truncate, read_private_file, lambda path: write_file(path, b"", durable=False)):
        with pytest.raises(UnsafePathError, match="belongs to another user"):
            use(folder / "outbox.json")

    assert not list(folder.iterdir())


@needs_superuser
def test_a_root_of_another_user_is_not_used(root: Path) -> None:
    give_away(root)

    with pytest.raises(UnsafePathError, match="storage root"):
        make_private_folders(root, root / "project")


def test_what_a_restored_backup_opened_to_others_is_closed_to_them_and_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_files, "_has_reported_tightening", False)
    files = [folder / name for name in ("a.json", "b.json")]
    for file in files:
        file.write_bytes(b"{}")
        file.chmod(0o666)
    folder.chmod(0o777)

    with caplog.at_level(logging.WARNING):
        assert [read_private_file(file) for file in files] == [b"{}", b"{}"]

    assert [mode_of(path) for path in (folder, *files)] == [0o700, 0o600, 0o600]
    assert [record.message.partition("action=")[2] for record in caplog.records] == ["storage_tightened"]
    assert str(folder) not in caplog.text


@pytest.mark.parametrize(("mode", "wanted"), [(0o775, 0o755), (0o777, 0o755), (0o1777, 0o1777), (0o755, 0o755)])
def test_the_root_is_closed_to_writers_unless_it_is_sticky(mode: int, wanted: int, root: Path) -> None:
    root.chmod(mode)

    make_private_folders(root, root / "project")

    assert mode_of(root) == wanted


_AS_OTHER_USER = """
import os, sys
from pathlib import Path
from memoair_protocol.durable import make_private_folders, write_file
from memoair_protocol.private_files import UnsafePathError, read_private_file
os.setgroups([]); os.setgid(65534); os.setuid(65534)
root = Path(sys.argv[1])
try:
    make_private_folders(root, root / "project")
    write_file(root / "project" / "a.json", b"mine", durable=False)
    print(read_private_file(root / "project" / "a.json").decode())
except UnsafePathError as error:
    print(type(error).__name__, error)
"""


def run_as_other_user(root: Path) -> str:
    for parent in root.parents:  # pytest's folders are private
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    command = [sys.executable, "-c", _AS_OTHER_USER, str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@needs_superuser
@pytest.mark.parametrize(
    ("mode", "answer"), [(0o1777, "mine"), (0o777, "UnsafePathError"), (0o755, "Permission"), (0o1775, "Permission")]
)
def test_an_unprivileged_user_shares_a_root_only_if_none_can_replace_what_is_in_it(
    mode: int, answer: str, root: Path
) -> None:
    root.chmod(mode)
    if answer == "Permission":
        with pytest.raises(subprocess.CalledProcessError):
            run_as_other_user(root)
    else:
        assert run_as_other_user(root).startswith(answer)


@needs_superuser
def test_a_private_folder_of_a_third_user_is_named_in_the_error(root: Path) -> None:
    os.chown(make(root / "project"), OTHER_UID - 1, -1)
    (root / "project").chmod(0o700)

    assert run_as_other_user(root).startswith(f"UnsafePathError {root / 'project'} belongs to another user")


@needs_superuser
def test_a_network_file_system_that_shows_the_superuser_as_another_user_is_used(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squashed = private_files._FileSystem(OTHER_UID, has_modes=True)
    monkeypatch.setattr(private_files, "_probe", lambda _: squashed)
    give_away(root, 0o700)
    give_away(make(root / "project"))

    make_private_folders(root, root / "project" / "user")
    write_file(root / "project" / "user" / "a.json", b"new", durable=True)

    assert read_private_file(root / "project" / "user" / "a.json") == b"new"


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_file_system_without_modes_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "_probe", lambda _: private_files._FileSystem(os.geteuid(), has_modes=False))
    monkeypatch.setattr(os, "fchmod", lambda *_: None)  # as on such file systems, it changes nothing
    folder.chmod(0o777)

    write_file(folder / "a.json", b"new", durable=False)

    assert read_private_file(folder / "a.json") == b"new"


def test_what_cannot_be_closed_to_others_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    folder.chmod(0o777)

    with pytest.raises(UnsafePathError, match="chmod go-rwx"):
        write_file(folder / "a.json", b"new", durable=False)


def test_deleting_a_link_keeps_what_it_points_to(folder: Path, tmp_path: Path) -> None:
    target = make(tmp_path / "elsewhere")
    (target / "file").write_bytes(SECRET)
    (folder / "link").symlink_to(target)
    make(folder / "session")
    (folder / "session" / "link").symlink_to(target)

    remove_private_tree(folder / "link")
    remove_private_tree(folder / "session")

    assert not list(folder.iterdir())
    assert (target / "file").read_bytes() == SECRET


def test_the_temporary_files_that_crashes_left_are_deleted(folder: Path) -> None:
    for name, age_s in ((".profile.json.0123.tmp", 7_200), ("profile.json.tmp", 7_200), (".outbox.json.4567.tmp", 0)):
        (folder / name).write_bytes(b"words")
        then = (folder / name).stat().st_mtime - age_s
        os.utime(folder / name, (then, then))

    write_file(folder / "profile.json", b"{}", durable=False)

    assert sorted(path.name for path in folder.iterdir()) == [".outbox.json.4567.tmp", "profile.json"]
