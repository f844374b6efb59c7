"""The bridge as it is run: four workers of gunicorn, forked from one that has loaded it, with 32 callers at once."""

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
from support.waiting import eventually
from support.webhooks import PUBLIC_URL, SECRETS, form_encoded, twilio_form, twilio_signature

from memoair_runtime.storage.user_folder import UserFolder

HERE = Path(__file__).parents[3] / "examples" / "flask_bridge"
SALT = "salt-of-the-tests-of-gunicorn"
SIGNED = {**SECRETS, "BRIDGE_CALLER_SALT": SALT, "BRIDGE_PUBLIC_URL": PUBLIC_URL}
CALLERS = 32


class Server:
    """Gunicorn, and whatever it has started."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home, self.port, self.storage_root = home, free_port(), home / "storage"
        first, last = free_ports(120)
        ours = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "BRIDGE_STORAGE_ROOT": str(self.storage_root),
            "BRIDGE_RUNTIME_PORTS": f"{first}-{last}",
            "BRIDGE_RECALL_MS": "20000",  # what deadlines do is tested elsewhere; here the machine may be slow
            "BRIDGE_KEEP_MS": "20000",
            "MEMOAIR_PROJECT_ID": PROJECT,
        }
        self.log = home / "gunicorn.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--bind", f"127.0.0.1:{self.port}"],
                cwd=HERE,
                env={**ours, **environ},
                stdout=output,
                stderr=output,
            )
        self._seen: dict[int, psutil.Process] = {}

    def workers(self) -> list[psutil.Process]:
        """The workers, the oldest first."""
        workers = psutil.Process(self.process.pid).children()
        self.look()
        return sorted(workers, key=lambda each: (each.create_time(), each.pid))

    def look(self) -> None:
        """Remember what runs now, to see later that it has ended."""
        with suppress(psutil.NoSuchProcess):
            self._seen |= {each.pid: each for each in psutil.Process(self.process.pid).children(recursive=True)}

    def left(self) -> list[psutil.Process]:
        """What was seen to run, and still does."""
        return [each for each in self._seen.values() if each.is_running() and is_alive(each.pid)]

    def runtimes(self) -> list[int]:
        """The processes that listen for a caller: those that the workers' hosts have forked."""
        self.look()
        hosts = {each.pid for each in self.left() if "memoair_runtime.fork_server" in _command(each)}
        return [each.pid for each in self.left() if _parent(each) in hosts and _listens(each)]

    def is_ready(self) -> bool:
        """Whether all workers are up, and one of them answers."""
        assert self.process.poll() is None, self.log.read_text()
        with suppress(urllib3.exceptions.HTTPError), urllib3.PoolManager(retries=False, timeout=2) as http:
            answered = http.request("GET", f"http://127.0.0.1:{self.port}/healthz")
            return answered.status == 200 and len(self.workers()) == 4
        return False

    def close(self) -> None:
        """End it as an operator does, or else by force."""
        self.look()
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            with suppress(AssertionError):
                eventually(lambda: not self.left(), within_s=30)
            left = self.left()
            for each in left:
                each.kill()
            assert not left


class Caller:
    """Somebody on the phone: says something, listens, and says the next thing; Twilio tries again what failed."""

    def __init__(self, server: Server, number: int) -> None:
        self.server, self.phone, self.call = server, f"+1415555{number:04}", f"CA{number:032x}"
        self.secret, self.turns, self.blanks, self.failure = f"secret{number:04}x", 0, 0, ""
        self._line = HTTPConnection("127.0.0.1", server.port, timeout=60)
        self._hang_up = threading.Event()
        self._thread = threading.Thread(target=self._talk, name=self.call)

    @property
    def id(self) -> str:
        return str(make_caller_id(SALT.encode(), self.phone))

    def start(self) -> None:
        self._thread.start()

    def hang_up(self) -> None:
        self._hang_up.set()
        self._thread.join(120)
        self._line.close()

    def _talk(self) -> None:
        try:
            self._post("/twilio/voice", twilio_form(self.call, number=self.phone))
            while not self._hang_up.wait(0.05):  # he listens
                said = f"Part {self.turns + 1} of my word is {self.secret}."
                path = f"/twilio/turn?n={self.turns + 1}"
                told = self._post(path, twilio_form(self.call, said, self.phone))
                assert set(re.findall(r"secret\d{4}x", told)) <= {self.secret}, told
                # What was said a moment ago, to whichever worker, is known; he hears it but for a search that was under
                # way in a runtime which ended with its worker.
                self.blanks += bool(self.turns) and "I remember:" not in told
                self.turns += 1
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failure = f"{self.call}, turn {self.turns + 1}: {error!r}"

    def _post(self, path: str, form: dict[str, str]) -> str:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **twilio_signature(path, form)}
        deadline = time.monotonic() + 60
        while True:
            try:
                self._line.request("POST", path, form_encoded(form), headers)
                answered = self._line.getresponse()
                told = answered.read().decode()
                if answered.status < 500:
                    assert answered.status == 200, answered.status
                    return told
            except (OSError, HTTPException):
                self._line.close()  # the worker is gone
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.02)

    def kept(self) -> dict[str, list[str]]:
        """The turns of all his calls on the disk, by the call."""
        folder = UserFolder(self.server.storage_root, PROJECT, self.id)
        kept: dict[str, list[str]] = {}
        for session_id, _ in folder.list_session_logs():
            events = map(json.loads, folder.session(session_id).log.read_bytes().splitlines())
            turns = [event["payload"]["turnId"] for event in events if event["type"] == "turn"]
            if turns:
                kept[session_id] = turns
        return kept

    def lease(self) -> int:
        """The process that serves him, by his lease."""
        return int(
            json.loads((UserFolder(self.server.storage_root, PROJECT, self.id).path / "lease.json").read_text())["pid"]
        )


@contextmanager
def serving(home: Path, **environ: str) -> Iterator[Server]:
    server = Server(home, **environ)
    try:
        eventually(server.is_ready, within_s=60)
        yield server
    finally:
        server.close()


@contextmanager
def calling(server: Server) -> Iterator[list[Caller]]:
    callers = [Caller(server, number) for number in range(CALLERS)]
    for each in callers:
        each.start()
    try:
        yield callers
    finally:
        for each in callers:
            each._hang_up.set()
        for each in callers:
            each.hang_up()


def all_go_on(callers: list[Caller], turns: int) -> None:
    """Wait until each caller has been answered so many times more."""
    wanted = [each.turns + turns for each in callers]

    def have() -> bool:
        assert not [each.failure for each in callers if each.failure]
        return all(each.turns >= want for each, want in zip(callers, wanted, strict=True))

    eventually(have, within_s=100)


@pytest.mark.timeout(600)
def test_no_turn_is_lost_doubled_or_heard_by_another_whatever_becomes_of_the_workers(
    tmp_path: Path, nothing_left_behind: None
) -> None:
    with serving(tmp_path, **SIGNED) as server:
        first = server.workers()
        with calling(server) as callers:
            all_go_on(callers, 2)
            runtimes = server.runtimes()
            assert len(runtimes) == CALLERS
            assert sorted(each.lease() for each in callers) == sorted(runtimes)

            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: not [each for each in first if is_alive(each.pid)], within_s=100)
            second = eventually(lambda: len(server.workers()) == 4 and server.workers(), within_s=60)
            all_go_on(callers, 2)

            killed = random.Random(4).choice(second)
            os.kill(killed.pid, signal.SIGKILL)
            eventually(lambda: not is_alive(killed.pid))
            eventually(lambda: len(server.workers()) == 4, within_s=60)
            all_go_on(callers, 2)

        assert not [each.failure for each in callers if each.failure]
        assert sum(each.blanks for each in callers) <= CALLERS // 4
        for each in callers:
            kept = Counter(turn for turns in each.kept().values() for turn in turns)
            told = {f"{each.call}:{turn}" for turn in range(1, each.turns + 1)}
            assert set(kept) == told
            assert set(kept.values()) == {1}, kept
        eventually(lambda: len(server.runtimes()) <= CALLERS, within_s=30)
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert not [each for each in (*SECRETS.values(), SALT, "+1415555", "secret00") if each in log]
    assert not list(tmp_path.glob(".gunicorn*"))


def test_what_the_readme_shows_works(tmp_path: Path, nothing_left_behind: None) -> None:
    blocks = re.findall(r"```console\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    first, *commands = blocks
    assert "BRIDGE_UNSIGNED=for-development-only .venv/bin/gunicorn -c gunicorn.conf.py" in first
    told = []
    with serving(tmp_path, BRIDGE_UNSIGNED="for-development-only") as server:
        for block in commands:
            script = "set -e\n" + block.replace("localhost:8000", f"127.0.0.1:{server.port}")
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=100, check=True)
            told.append(done.stdout)
    calls, over = told
    assert calls.count("<Gather") == 2
    assert "size nine" in calls.partition('{"memory":')[2]
    assert over.startswith("204\n204\n")
    assert "Rex" in over


def test_a_bridge_without_its_secrets_does_not_come_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--bind", f"127.0.0.1:{free_port()}"],
        cwd=HERE,
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


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _parent(process: psutil.Process) -> Any:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _listens(process: psutil.Process) -> bool:
    try:
        return any(each.status == psutil.CONN_LISTEN for each in process.net_connections("tcp"))
    except psutil.Error:
        return False
