"""The SDK under the servers that run Python applications: processes that fork, and threads that are greenlets."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from support.clients import client_arguments, is_alive, turn_ids
from support.commands import free_port
from support.ports import free_ports
from support.waiting import eventually

# A server and its workers start within seconds, and many times that on a loaded machine.
pytestmark = pytest.mark.timeout(400)

CALLERS, TURNS = 6, 24
PYTHON = sys.executable
GUNICORN = [PYTHON, "-m", "gunicorn", "servers.wsgi_app:app", "--no-control-socket", "-b", "127.0.0.1:{port}"]
UVICORN = ["--log-level", "warning"]
UWSGI = shutil.which("uwsgi") or "uwsgi"
UWSGI_OPTIONS = ["--http-socket", "127.0.0.1:{port}", "--module", "servers.wsgi_app:app", "--master"]
UWSGI_OPTIONS += ["--die-on-term", "--disable-logging"]
needs_uwsgi = pytest.mark.skipif(not shutil.which("uwsgi"), reason="uWSGI is not on the PATH; it is built from source")


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


SERVERS = {
    "gunicorn gthread, preloaded": ([*GUNICORN, "-w", "2", "-k", "gthread", "--threads", "8", "--preload"], []),
    "gunicorn gevent": ([*GUNICORN, "-w", "2", "-k", "gevent"], [needs("gevent")]),
    "eventlet": ([PYTHON, "-W", "ignore", "-m", "servers.eventlet_server", "{port}"], [needs("eventlet")]),
    "uvicorn": ([PYTHON, "-m", "uvicorn", "servers.asgi_app:app", "--port", "{port}", "--workers", "2", *UVICORN], []),
    "uwsgi": ([UWSGI, *UWSGI_OPTIONS, "--processes", "2"], [needs_uwsgi]),
    "uwsgi threads": ([UWSGI, *UWSGI_OPTIONS, "--processes", "2", "--threads", "4"], [needs_uwsgi]),
}


class Program:
    """A server in its own session, with everything that it starts."""

    def __init__(self, command: list[str], home: Path, **environ: str) -> None:
        self.port, self.storage_root, self.log = free_port(), home / "storage", home / "server.log"
        arguments = client_arguments(self.storage_root, runtime_port_range=free_ports(60))
        path = [str(Path(__file__).parents[1]), *sys.path]
        self.environ = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(entry for entry in path if entry),
            "CLIENT_ARGUMENTS": json.dumps(arguments),
            "CELERY_FOLDER": str(home / "celery"),
            **environ,
        }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [part.format(port=self.port) for part in command],
                env=self.environ,
                cwd=home,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._seen: set[psutil.Process] = set()

    def call(self, path: str, **query: str) -> Any:
        """Return the answer to a request, which must succeed."""
        status, answer = self.try_to_call(path, **query)
        assert status == 200, answer
        return answer

    def try_to_call(self, path: str, **query: str) -> tuple[int, Any]:
        with urllib3.PoolManager(retries=False, timeout=100) as http:
            response = http.request("GET", f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(query)}")
        self.record_processes()
        return response.status, response.json().get("answer")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(urllib3.exceptions.HTTPError):
            return self.try_to_call("/")[0] == 200
        return False

    def record_processes(self) -> None:
        """Record the processes that run now, to check later that they have ended."""
        with suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.process.pid).children(recursive=True))

    def stop(self) -> None:
        """Stop the server as an operator does, and check that no process is left."""
        self.record_processes()
        self.process.terminate()
        self.process.wait(100)
        eventually(lambda: not [each for each in self._seen if each.is_running() and is_alive(each.pid)], within_s=60)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path, nothing_left_behind: None) -> Iterator[Start]:
    """Start servers; kill them after the test."""
    started: list[Program] = []

    def start_server(command: list[str], **environ: str) -> Program:
        started.append(Program(command, tmp_path, **environ))
        return started[-1]

    yield start_server
    for each in started:
        each.kill()


def caller(number: int) -> str:
    return f"caller_{number % CALLERS}"


def words(number: int) -> str:
    return f"My word number {number} is secret{number:03}x."


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, (_, marks) in SERVERS.items()])
def test_every_turn_is_saved_and_recalled(name: str, start: Start) -> None:
    server = start(SERVERS[name][0])
    eventually(server.is_ready, within_s=60)
    with ThreadPoolExecutor(8) as callers:
        saved = list(callers.map(lambda n: server.call("/say", user=caller(n), text=words(n)), range(TURNS)))
        found = list(callers.map(lambda n: server.call("/recall", user=caller(n), text=words(n)), range(TURNS)))

    assert all(saved)
    for number, text in enumerate(found):
        own = {f"secret{other:03}x" for other in range(TURNS) if caller(other) == caller(number)}
        assert f"secret{number:03}x" in text
        assert set(re.findall(r"secret\d+x", text)) <= own
    server.stop()
    assert sum(len(turn_ids(server.storage_root, caller(n))) for n in range(CALLERS)) == TURNS
    log = server.log.read_text()
    assert not re.search("Traceback|action=|secret0", log), log


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SERVERS[name][1]) for name in ("gunicorn gevent", "eventlet")]
)
def test_a_runtime_that_dies_under_greenlets_is_noticed_and_replaced(name: str, start: Start) -> None:
    server = start(["-w 1" if part == "2" else part for part in SERVERS[name][0] if part != "-w"])
    eventually(server.is_ready, within_s=60)
    server.call("/say", user="ada", text=words(1))
    pid = server.call("/runtimes")["ada"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: "action=runtime_died" in server.log.read_text() or server.call("/runtimes")["ada"] != pid)

    assert "secret001x" in server.call("/recall", user="ada", text=words(1))
    assert server.call("/runtimes")["ada"] not in (pid, None)
    server.stop()


GREENLETS = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("package", [pytest.param(name, marks=needs(name)) for name in GREENLETS])
def test_the_raw_memory_works_under_greenlets(package: str, tmp_path: Path, nothing_left_behind: None) -> None:
    code = f"""
{GREENLETS[package]}
import os, signal, threading
from memoair_voice_sync import MemoAirVoiceMemorySync

options = dict(runtime_url="http://127.0.0.1:0", storage_root={str(tmp_path)!r}, cloud_base_url=None)
with MemoAirVoiceMemorySync(project_id="p", user_id="ada", **options) as memory:
    memory.start_session(timeout_s=60)
    def say(number):
        memory.after_turn(f"My word is secret{{number}}x.", "Noted.", f"t{{number}}", timeout_s=20)
    threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    os.kill(memory.runtime_pid, signal.SIGKILL)
    found = memory.search_memory("my word", intent="summarise_recent", timeout_ms=20_000)
    assert all(f"secret{{number}}x" in found.contextText for number in range(4)), found
"""
    command = [PYTHON, "-W", "ignore", "-c", code]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


@needs("gevent")
def test_a_preloaded_application_with_gevent_workers_is_refused_with_the_reason(start: Start) -> None:
    # A worker whose library was patched too late may not notice that it has to stop.
    server = start([*SERVERS["gunicorn gevent"][0], "--preload", "--graceful-timeout", "2"])
    eventually(server.is_ready, within_s=60)

    for path in ("/say", "/recall"):
        status, error = server.try_to_call(path, user="ada", text="hello")
        assert status == 500
        assert error.startswith("RuntimeError: gevent or eventlet has patched the standard library after")
        assert "preload_app" in error
    server.stop()


@pytest.mark.parametrize("patch", ["gevent.monkey.patch_all()", "eventlet.monkey_patch()"])
def test_a_patch_after_the_import_is_refused_at_once(patch: str) -> None:
    package = patch.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    code = f"""
import memoair_voice_sync, {".".join(patch.split("(")[0].split(".")[:-1])}
{patch}
memoair_voice_sync.MemoAirVoiceClientSync(api_key="k", project_id="p", agent_id="a", cloud_base_url=None)
"""
    done = subprocess.run([PYTHON, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "RuntimeError: gevent or eventlet has patched the standard library after memoair_voice_sync" in done.stderr


@pytest.mark.parametrize("pool", ["prefork", "threads", pytest.param("gevent", marks=needs("gevent"))])
@needs("celery")
def test_celery_workers_save_and_recall(pool: str, start: Start) -> None:
    worker = start(
        [PYTHON, "-W", "ignore", "-m", "celery", "-A", "servers.celery_app", "worker", "-P", pool, "-c", "2"]
    )

    def call(name: str) -> list[tuple[int, Any]]:
        jobs = [(name, caller(number), words(number)) for number in range(TURNS)]
        command = [PYTHON, "-W", "ignore", "-m", "servers.celery_calls"]
        done = subprocess.run(
            command,
            input=json.dumps(jobs),
            env=worker.environ,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=200,
        )
        worker.record_processes()
        return [(pid, answer) for pid, answer in json.loads(done.stdout)]

    saved, found = call("say"), call("recall")
    worker.stop()
    assert all(event_id for _, event_id in saved)
    assert all(f"secret{number:03}x" in text for number, (_, text) in enumerate(found))
    assert len({pid for pid, _ in saved + found}) == (2 if pool == "prefork" else 1)
    assert not re.search("Traceback|action=|secret0", worker.log.read_text()), worker.log.read_text()
