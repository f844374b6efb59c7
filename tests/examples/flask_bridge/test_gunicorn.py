"""The bridge in production: four gunicorn workers, forked after the application is loaded, and 32 callers at once."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from bridge.callers import make_caller_id
from support.clients import PROJECT, free_ports, is_alive
from support.commands import free_port
from support.model_server import ScriptedModel
from support.waiting import eventually
from support.webhooks import PUBLIC_URL, SECRETS, form_encoded, twilio_form, twilio_signature

from memoair_runtime.storage.user_folder import UserFolder

EXAMPLE = Path(__file__).parents[3] / "examples" / "flask_bridge"
SALT = "salt-of-the-tests-of-gunicorn"
SIGNED_ENVIRON = {**SECRETS, "BRIDGE_CALLER_SALT": SALT, "BRIDGE_PUBLIC_URL": PUBLIC_URL}
METRICS_TOKEN = "metrics-token-of-the-tests"
CALLER_COUNT = 32


class GunicornServer:
    """Gunicorn, and all processes that it has started."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home, self.port, self.storage_root = home, free_port(), home / "storage"
        first, last = free_ports(120)
        defaults = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "BRIDGE_STORAGE_ROOT": str(self.storage_root),
            "BRIDGE_RUNTIME_PORTS": f"{first}-{last}",
            "BRIDGE_RECALL_MS": "20000",  # deadlines are tested elsewhere; the machine may be slow here
            "BRIDGE_KEEP_MS": "20000",
            "MEMOAIR_PROJECT_ID": PROJECT,
        }
        self.log = home / "gunicorn.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--bind", f"127.0.0.1:{self.port}"],
                cwd=EXAMPLE,
                env={**defaults, **environ},
                stdout=output,
                stderr=output,
            )
        self._seen: dict[int, psutil.Process] = {}

    def list_workers(self) -> list[psutil.Process]:
        """Return the workers, the oldest first."""
        workers = psutil.Process(self.process.pid).children()
        self.record_processes()
        return sorted(workers, key=lambda worker: (worker.create_time(), worker.pid))

    def record_processes(self) -> None:
        """Record the processes that run now, to check later that they have ended."""
        with suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(self.process.pid).children(recursive=True)
            self._seen |= {process.pid: process for process in descendants}

    def list_running(self) -> list[psutil.Process]:
        """Return the recorded processes that still run."""
        return [process for process in self._seen.values() if process.is_running() and is_alive(process.pid)]

    def list_runtime_pids(self) -> list[int]:
        """Return the pids of the runtimes: processes that listen and were forked by the workers' fork servers."""
        self.record_processes()
        running = self.list_running()
        fork_servers = {process.pid for process in running if "memoair_runtime.fork_server" in _command_line(process)}
        return [process.pid for process in running if _parent_pid(process) in fork_servers and _is_listening(process)]

    def is_ready(self) -> bool:
        """Return whether all workers run and one of them answers."""
        assert self.process.poll() is None, self.log.read_text()
        with suppress(urllib3.exceptions.HTTPError), urllib3.PoolManager(retries=False, timeout=2) as http:
            response = http.request("GET", f"http://127.0.0.1:{self.port}/healthz")
            return response.status == 200 and len(self.list_workers()) == 4
        return False

    def close(self) -> None:
        """Stop gunicorn as an operator does, or kill it, and check that no process is left."""
        self.record_processes()
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            with suppress(AssertionError):
                eventually(lambda: not self.list_running(), within_s=30)
            leftovers = self.list_running()
            for process in leftovers:
                process.kill()
            assert not leftovers


class SimulatedCaller:
    """A caller who speaks, listens to the answer and speaks again. Failed requests are retried, as Twilio does."""

    def __init__(self, server: GunicornServer, number: int) -> None:
        self.server, self.phone, self.call = server, f"+1415555{number:04}", f"CA{number:032x}"
        self.secret, self.turns, self.turns_without_memory, self.failure = f"secret{number:04}x", 0, 0, ""
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        self._hang_up = threading.Event()
        self._thread = threading.Thread(target=self._run_call, name=self.call)

    @property
    def id(self) -> str:
        return str(make_caller_id(SALT.encode(), self.phone))

    def start(self) -> None:
        self._thread.start()

    def hang_up(self) -> None:
        self._hang_up.set()
        self._thread.join(120)
        self._connection.close()

    def _run_call(self) -> None:
        try:
            self._post("/twilio/voice", twilio_form(self.call, number=self.phone))
            while not self._hang_up.wait(0.05):  # the caller listens
                text = f"Part {self.turns + 1} of my word is {self.secret}."
                path = f"/twilio/turn?n={self.turns + 1}"
                reply = self._post(path, twilio_form(self.call, text, self.phone))
                assert set(re.findall(r"secret\d{4}x", reply)) <= {self.secret}, reply
                # Every worker recalls the previous turn, unless the runtime that was searching ended with its worker.
                self.turns_without_memory += bool(self.turns) and "I remember:" not in reply
                self.turns += 1
        except Exception as error:  # noqa: BLE001 - the test checks `failure`
            self.failure = f"{self.call}, turn {self.turns + 1}: {error!r}"

    def _post(self, path: str, form: dict[str, str]) -> str:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **twilio_signature(path, form)}
        deadline = time.monotonic() + 60
        while True:
            try:
                self._connection.request("POST", path, form_encoded(form), headers)
                response = self._connection.getresponse()
                reply = response.read().decode()
                if response.status < 500:
                    assert response.status == 200, response.status
                    return reply
            except (OSError, HTTPException):
                self._connection.close()  # the worker has ended
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.02)

    def read_saved_turns(self) -> dict[str, list[str]]:
        """Return the ids of the caller's turns on disk, by call."""
        folder = UserFolder(self.server.storage_root, PROJECT, self.id)
        turns_by_call: dict[str, list[str]] = {}
        for session_id, _ in folder.list_session_logs():
            events = map(json.loads, folder.session(session_id).log.read_bytes().splitlines())
            turns = [event["payload"]["turnId"] for event in events if event["type"] == "turn"]
            if turns:
                turns_by_call[session_id] = turns
        return turns_by_call

    def read_runtime_pid(self) -> int:
        """Return the pid of the runtime that serves the caller, from the lease."""
        return int(
            json.loads((UserFolder(self.server.storage_root, PROJECT, self.id).path / "lease.json").read_text())["pid"]
        )


@contextmanager
def run_server(home: Path, **environ: str) -> Iterator[GunicornServer]:
    server = GunicornServer(home, **environ)
    try:
        eventually(server.is_ready, within_s=60)
        yield server
    finally:
        server.close()


@contextmanager
def run_callers(server: GunicornServer) -> Iterator[list[SimulatedCaller]]:
    callers = [SimulatedCaller(server, number) for number in range(CALLER_COUNT)]
    for caller in callers:
        caller.start()
    try:
        yield callers
    finally:
        for caller in callers:
            caller._hang_up.set()
        for caller in callers:
            caller.hang_up()


def wait_for_turns(callers: list[SimulatedCaller], turns: int) -> None:
    """Wait until each caller has received ``turns`` more answers."""
    targets = [caller.turns + turns for caller in callers]

    def all_reached() -> bool:
        assert not [caller.failure for caller in callers if caller.failure]
        return all(caller.turns >= target for caller, target in zip(callers, targets, strict=True))

    eventually(all_reached, within_s=100)


@pytest.mark.timeout(600)
def test_restarted_and_killed_workers_do_not_lose_duplicate_or_leak_turns(
    tmp_path: Path, nothing_left_behind: None
) -> None:
    with run_server(tmp_path, **SIGNED_ENVIRON) as server:
        old_workers = server.list_workers()
        with run_callers(server) as callers:
            wait_for_turns(callers, 2)

            def has_one_runtime_each() -> bool:
                with suppress(FileNotFoundError):
                    return sorted(server.list_runtime_pids()) == sorted(caller.read_runtime_pid() for caller in callers)
                return False

            eventually(has_one_runtime_each, within_s=60)  # beside a load, an answer comes before a runtime is there

            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: not [worker for worker in old_workers if is_alive(worker.pid)], within_s=100)
            new_workers = eventually(lambda: len(server.list_workers()) == 4 and server.list_workers(), within_s=60)
            wait_for_turns(callers, 2)

            killed = random.Random(4).choice(new_workers)
            os.kill(killed.pid, signal.SIGKILL)
            eventually(lambda: not is_alive(killed.pid))
            eventually(lambda: len(server.list_workers()) == 4, within_s=60)
            wait_for_turns(callers, 2)

        assert not [caller.failure for caller in callers if caller.failure]
        assert sum(caller.turns_without_memory for caller in callers) <= CALLER_COUNT // 4
        for caller in callers:
            saved = Counter(turn for turns in caller.read_saved_turns().values() for turn in turns)
            expected = {f"{caller.call}:{turn}" for turn in range(1, caller.turns + 1)}
            assert set(saved) == expected
            assert set(saved.values()) == {1}, saved
        eventually(lambda: len(server.list_runtime_pids()) <= CALLER_COUNT, within_s=30)
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert not [secret for secret in (*SECRETS.values(), SALT, "+1415555", "secret00") if secret in log]
    assert not list(tmp_path.glob(".gunicorn*"))


def post_turn(server: GunicornServer, path: str, form: dict[str, str]) -> str:
    """Send a turn over a connection of its own, so that any worker may take it."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/x-www-form-urlencoded", **twilio_signature(path, form)}
    connection.request("POST", path, form_encoded(form), headers)
    response = connection.getresponse()
    reply = response.read().decode()
    connection.close()
    assert response.status == 200, reply
    return reply


def read_metrics(server: GunicornServer) -> dict[str, float]:
    """Return the counters of all workers by name and labels."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_workers_give_a_turn_that_is_sent_again_the_same_answer_and_add_up_their_counters(
    tmp_path: Path, nothing_left_behind: None
) -> None:
    with run_server(tmp_path, **SIGNED_ENVIRON, BRIDGE_METRICS_TOKEN=METRICS_TOKEN) as server:
        caller = SimulatedCaller(server, 1)
        post_turn(server, "/twilio/turn?n=1", twilio_form(caller.call, "My tent is green.", caller.phone))
        form = twilio_form(caller.call, "Which colour has my tent?", caller.phone)
        with ThreadPoolExecutor(16) as threads:
            replies = list(threads.map(lambda _: post_turn(server, "/twilio/turn?n=2", form), range(32)))
        assert len(set(replies)) == 1  # the answers of the stand-in differ with what has been said before
        assert caller.read_saved_turns() == {caller.call: [f"{caller.call}:1", f"{caller.call}:2"]}
        metrics = read_metrics(server)
        assert metrics['bridge_events_total{outcome="kept",platform="twilio"}'] == 2
        assert metrics['bridge_events_total{outcome="duplicate",platform="twilio"}'] == 31


@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_sender_of_a_body_that_is_too_large_reads_the_413(
    tmp_path: Path, nothing_left_behind: None, is_chunked: bool
) -> None:
    with run_server(tmp_path, **SIGNED_ENVIRON, BRIDGE_METRICS_TOKEN=METRICS_TOKEN) as server:
        parts = [b" " * (1 << 20)] * 40  # more than fits in the buffers of the connection
        headers = {} if is_chunked else {"Content-Length": str(len(parts) << 20)}
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/retell/webhook", iter(parts), headers, encode_chunked=is_chunked)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (413, {"error": "Request Entity Too Large"})
        connection.close()
        assert read_metrics(server)['bridge_events_total{outcome="too_large",platform="retell"}'] == 1


def test_a_model_behind_gunicorn_is_heard_while_it_speaks_and_kept_when_the_platform_hangs_up(
    tmp_path: Path, nothing_left_behind: None
) -> None:
    secret = "secret-of-the-platforms-for-the-model"
    with ScriptedModel() as model:
        environ = {**SIGNED_ENVIRON, "BRIDGE_MODEL_URL": model.base_url, "BRIDGE_MODEL_SECRET": secret}
        with run_server(tmp_path, **environ) as server:
            model.words = ["I will ", "see to it.", model.PAUSE, *[" I call you back on Friday."] * 20_000]
            caller = SimulatedCaller(server, 2)
            call = {"id": caller.call, "customer": {"number": caller.phone}}
            body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "When?"}], "call": call}
            connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
            connection.request("POST", "/vapi/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            heard = response.readline() + response.readline() + response.readline()  # while the model is waiting
            assert b"I will " in heard
            assert b"see to it." in heard
            response.close()
            connection.close()
            model.goes_on.set()
            assert model.hung_up.wait(60)
            eventually(lambda: caller.read_saved_turns() == {caller.call: [f"{caller.call}:1"]}, within_s=60)


def test_the_commands_of_the_readme_work(tmp_path: Path, nothing_left_behind: None) -> None:
    blocks = re.findall(r"```console\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    start, *commands = blocks
    assert "BRIDGE_UNSIGNED=for-development-only .venv/bin/gunicorn -c gunicorn.conf.py" in start
    outputs = []
    with run_server(tmp_path, BRIDGE_UNSIGNED="for-development-only") as server:
        for block in commands:
            script = "set -e\n" + block.replace("localhost:8000", f"127.0.0.1:{server.port}")
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=100, check=True)
            outputs.append(done.stdout)
    live_calls, finished_calls = outputs
    assert live_calls.count("<Gather") == 2
    assert "size nine" in live_calls.partition('{"memory":')[2]
    assert finished_calls.startswith("204\n204\n")
    assert "Rex" in finished_calls


def test_gunicorn_does_not_start_without_secrets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--bind", f"127.0.0.1:{free_port()}"],
        cwd=EXAMPLE,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    for name in (
        "TWILIO_AUTH_TOKEN",
        "VAPI_HMAC_SECRET",
        "RETELL_API_KEY",
        "ELEVENLABS_TOOL_SECRET",
        "BRIDGE_CALLER_SALT",
    ):
        assert f"{name} " in done.stderr
    assert "Listening" not in done.stderr


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _parent_pid(process: psutil.Process) -> Any:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _is_listening(process: psutil.Process) -> bool:
    try:
        return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections("tcp"))
    except psutil.Error:
        return False
