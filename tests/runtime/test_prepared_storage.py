"""A storage root in which another user of the machine has prepared folders, links and files."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.calls import user_folder, write_call
from support.clients import clients_over
from support.other_users import give_away, make_shared_root, needs_owners, needs_superuser
from support.runtimes import PROJECT, USER, RunningRuntime

from memoair_protocol.erasure_marks import DeviceTime
from memoair_protocol.processes import process_start_time
from memoair_protocol.timestamps import utc_now
from memoair_runtime.main import EXIT_STORAGE
from memoair_runtime.storage.erasure import erase, erase_unserved_user
from memoair_runtime.storage.erasure_record import CloudErasure
from memoair_runtime.storage.lease import find_holder
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.retention import drop_unserved
from memoair_runtime.storage.trace_file import TraceFile
from memoair_voice_sync import MemoAirVoiceMemoryError
from memoair_voice_sync._processes.started_runtime import runtime_from_lease

pytestmark = needs_owners
WORDS = "My cat is called Mila."
SECRET = b"a file of the victim\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a storage root in which every user may create files, as in ``/tmp``."""
    return make_shared_root(tmp_path)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a file that must keep its content."""
    file = tmp_path / "victim"
    file.write_bytes(SECRET)
    return file


@contextmanager
def listening_stranger() -> Iterator[tuple[int, list[bytes]]]:
    """Run a server of another user that writes down what it hears; yield its port and that."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(1 << 16))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def process_of_another_user() -> Iterator[int]:
    """Run a process of another user; yield its id."""
    code = "import os, sys; os.setgid(65534); os.setuid(65534); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def lease_content(port: int, pid: int, **changes: Any) -> dict[str, Any]:
    return {
        "pid": pid,
        "createTime": process_start_time(pid),
        "host": "127.0.0.1",
        "port": port,
        "token": None,
        "sessionId": None,
        "cloud": None,
        **changes,
    }


def write_lease(root: Path, content: dict[str, Any]) -> Path:
    folder = user_folder(root)
    folder.create()
    folder.lease.write_text(json.dumps(content))
    folder.lease.chmod(0o600)
    return folder.lease


@needs_superuser
@pytest.mark.parametrize("is_whole_folder", [False, True])
def test_a_lease_of_another_user_is_not_borrowed_and_the_error_names_it(root: Path, *, is_whole_folder: bool) -> None:
    with listening_stranger() as (port, heard), process_of_another_user() as pid, clients_over(root) as new_client:
        lease = write_lease(root, lease_content(port, pid))
        lock = ProcessLock(user_folder(root).lock("runtime"))  # as a runtime of theirs would hold it
        assert lock.try_acquire()
        give_away(lease, 0o644)
        if is_whole_folder:
            for folder in (user_folder(root).path, user_folder(root).path.parent):
                give_away(folder, 0o777)
        client = new_client()

        with pytest.raises(MemoAirVoiceMemoryError) as raised:
            client.load_index(user={"id": USER})

        named = user_folder(root).path.parent if is_whole_folder else lease
        lock.release()
    assert raised.value.code == "runtime.start_failed"
    assert f"{named} belongs to another user" in str(raised.value)
    assert "remove it or change its owner" in str(raised.value)
    assert WORDS not in str(raised.value)
    assert heard == []


@pytest.mark.parametrize(
    "changes", [{"host": "192.0.2.1"}, {"host": "example.org"}, {"port": 0}, {"port": 1 << 16}, {"pid": 0}, {"pid": -1}]
)
def test_a_lease_that_leads_elsewhere_is_not_borrowed(changes: dict[str, Any], root: Path) -> None:
    content = lease_content(7878, os.getpid())
    write_lease(root, content)
    assert find_holder(user_folder(root)) is not None
    assert runtime_from_lease(content) is not None

    write_lease(root, content | changes)

    assert find_holder(user_folder(root)) is None
    assert runtime_from_lease(content | changes) is None


@needs_superuser
def test_a_lease_that_names_a_process_of_another_user_is_not_borrowed(root: Path) -> None:
    with process_of_another_user() as pid:
        content = lease_content(7878, pid)
        write_lease(root, content)

        assert find_holder(user_folder(root)) is None
        assert runtime_from_lease(content) is None


def make_foreign(path: Path) -> None:
    path.mkdir(parents=True)
    give_away(path, 0o777)


def make_link(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    elsewhere.mkdir()
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("make", [pytest.param(make_foreign, marks=needs_superuser), make_link])
def test_a_runtime_does_not_start_in_a_folder_that_another_user_prepared(
    make: Callable[[Path], None], root: Path
) -> None:
    project = user_folder(root).path.parent
    make(project)

    command = [sys.executable, "-m", "memoair_runtime"]
    environ = {
        "MEMOAIR_RUNTIME_BIND_ADDR": "127.0.0.1:0",
        "MEMOAIR_RUNTIME_PROJECT_ID": PROJECT,
        "MEMOAIR_RUNTIME_USER_ID": USER,
        "MEMOAIR_RUNTIME_STORAGE_ROOT": str(root),
    }
    process = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False)

    assert process.returncode == EXIT_STORAGE
    assert process.stderr.startswith(f"voice-runtime: {project} ")
    assert json.loads(process.stdout)["event"] == "failed"
    assert list(project.iterdir()) == []


def test_links_at_the_files_of_a_user_are_not_followed(root: Path, victim: Path) -> None:
    folder = user_folder(root)
    session = folder.create_session("s1")
    links = [
        *(folder.path / name for name in ("profile.json", "profile.json.tmp", "outbox.json", "recall_traces.jsonl")),
        *(session.path / name for name in ("working_brief.json", "working_brief.json.tmp")),
    ]
    for link in links:
        link.symlink_to(victim)

    with closing(RunningRuntime(root)) as runtime:
        runtime.save("s1", "t1", WORDS)
        runtime.search("s1", "cat")
        runtime.post("session/end", sessionId="s1", reason="done")
        assert runtime.terminate() == 0

    assert victim.read_bytes() == SECRET
    assert not session.brief.is_symlink()
    assert json.loads(session.brief.read_bytes())["openedWith"] == WORDS


@pytest.mark.parametrize("name", ["session.jsonl", "session.lock"])
def test_a_link_at_a_log_or_its_lock_is_refused_aloud(name: str, root: Path, victim: Path) -> None:
    session = user_folder(root).create_session("s1")
    (session.path / name).symlink_to(victim)

    with closing(RunningRuntime(root)) as runtime:
        status, reply = runtime.post("turn/after", sessionId="s1", turnId="t1", userText=WORDS, assistantText="")

    assert (status, reply["error"]["code"]) == (503, "runtime.storage_unavailable")
    assert f"{session.path / name} is a link" in reply["error"]["message"]
    assert victim.read_bytes() == SECRET


def test_erasing_a_user_follows_no_link(root: Path, tmp_path: Path) -> None:
    write_call(root, "s1", [(WORDS, "")])
    folder = user_folder(root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "session.jsonl").write_bytes(SECRET)
    for link in (folder.path / "linked", folder.session("s1").path / "linked", folder.path / ".forgotten-1"):
        link.symlink_to(elsewhere)

    counts = erase(folder, utc_now(), keeps_later=False)

    assert counts.turns == 1
    assert [path.name for path in folder.path.iterdir() if path.suffix != ".lock"] == []
    assert (elsewhere / "session.jsonl").read_bytes() == SECRET


def test_the_folder_of_a_user_that_is_a_link_is_neither_erased_nor_trimmed(root: Path, tmp_path: Path) -> None:
    other_root = tmp_path / "elsewhere"
    write_call(other_root, "s1", [(WORDS, "")])
    folder = user_folder(root)
    folder.path.parent.mkdir(parents=True, mode=0o700)
    folder.path.symlink_to(user_folder(other_root).path)

    with pytest.raises(PermissionError, match="is a link"):
        erase(folder, utc_now(), keeps_later=False)
    with pytest.raises(PermissionError, match="is a link"):
        erase_unserved_user(folder, CloudErasure("cloud", utc_now()), utc_now(), DeviceTime.now())
    with pytest.raises(PermissionError, match="is a link"):
        drop_unserved(folder, utc_now())

    assert user_folder(other_root).session("s1").log.exists()


def test_traces_are_not_written_through_a_link(root: Path, victim: Path) -> None:
    folder = user_folder(root)
    folder.create()
    folder.recall_traces.symlink_to(victim)

    with pytest.raises(PermissionError, match="is a link"):
        TraceFile(folder.recall_traces).append([b"{}"])

    assert victim.read_bytes() == SECRET


def test_a_lock_file_that_is_a_link_is_not_taken(root: Path, victim: Path) -> None:
    folder = user_folder(root)
    folder.create()
    folder.lock("pull").symlink_to(victim)

    assert not ProcessLock(folder.lock("pull")).try_acquire()

    assert victim.read_bytes() == SECRET


def test_a_restored_backup_is_used_and_closed_to_others(root: Path) -> None:
    write_call(root, "s1", [(WORDS, "")])
    for path in (user_folder(root).path.parent, *user_folder(root).path.parent.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)

    with closing(RunningRuntime(root)) as runtime:
        runtime.wait_until_loaded()
        reply = runtime.search("s2", "What is the name of the cat?")
        output = runtime.output()

    assert WORDS in reply["contextText"]
    assert output.count("action=storage_tightened") == 1
    log = user_folder(root).session("s1").log
    assert [path.stat().st_mode & 0o777 for path in (log, *log.parents[:3])] == [0o600, 0o700, 0o700, 0o700]
