"""Requirements of a LiveKit worker: an event loop that never blocks, a job that saves before it ends, a wheel."""

import ast
import asyncio
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from blockbuster import blockbuster_ctx
from livekit import rtc
from livekit.agents import JobContext, JobExecutorType, JobProcess
from livekit.agents.job import JobAcceptArguments, RunningJobInfo, _JobContextVar
from livekit.protocol import agent as agent_proto
from support.livekit_calls import open_call
from support.waiting import wait_until

ROOT = Path(__file__).parents[3]


@pytest.mark.anyio
async def test_nothing_blocks_the_event_loop(
    new_agent: Any, saved_payloads: Any, caplog: pytest.LogCaptureFixture
) -> None:
    agent = new_agent()
    # Raises in the caller of anything that waits for a disk, a socket, a lock or a clock in the event loop.
    with blockbuster_ctx(["memoair_livekit", "memoair_voice", "memoair_voice_sync"]) as blocked:
        async with open_call(agent) as call:
            await call.say("My boots are red.")
            await call.type_text("What colour are my boots?")
        await agent.on_exit()
        assert blocked.functions, "blockbuster watches no function"
    assert not [record for record in caplog.records if record.name == "memoair_livekit"], (
        "an error was caught and logged"
    )
    assert [turn["userText"] for turn in saved_payloads()] == ["My boots are red.", "What colour are my boots?"]


def make_job() -> JobContext:
    """Return a job as a worker makes it, with a room that is never connected."""
    info = RunningJobInfo(
        accept_arguments=JobAcceptArguments(name="", identity="", metadata=""),
        job=agent_proto.Job(id="AJ_test"),
        url="ws://127.0.0.1:1",
        token="",
        worker_id="AW_test",
        fake_job=True,
    )
    return JobContext(
        proc=JobProcess(executor_type=JobExecutorType.THREAD, user_arguments=None, http_proxy=None),
        info=info,
        room=rtc.Room(),
        on_connect=lambda: None,
        on_shutdown=lambda _: None,
        inference_executor=None,  # type: ignore[arg-type]
    )


@pytest.mark.anyio
async def test_a_job_saves_the_last_words_before_it_ends(new_agent: Any, saved_payloads: Any) -> None:
    job = make_job()
    token = _JobContextVar.set(job)
    try:
        agent = new_agent()
        async with open_call(agent) as call:
            await wait_until(lambda: agent._memoair_listener)
            call.end_turn("Goodbye.")
            await wait_until(lambda: call.items("assistant"))
            # As a worker does: all callbacks concurrently, including the one that closes the session.
            await asyncio.gather(*(callback("") for callback in job._shutdown_callbacks))
            assert [turn["userText"] for turn in saved_payloads()] == ["Goodbye."]
            assert not psutil.Process().children()
    finally:
        _JobContextVar.reset(token)
        await job._on_cleanup()


def test_the_package_imports_only_the_public_async_client() -> None:
    imported = set()
    for path in (ROOT / "integrations" / "livekit" / "memoair_livekit").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    own_packages = {name for name in imported if name.startswith("memoair_") and not name.startswith("memoair_livekit")}
    assert own_packages == {"memoair_voice", "memoair_voice.integration"}
    assert {name for name in imported if name.startswith("livekit")} == {"livekit.agents", "livekit.agents.telemetry"}


@pytest.mark.timeout(900)  # a build takes seconds, and many times that on a busy machine
def test_the_wheel_declares_its_requirements(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", ROOT, source], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist"]
    build = subprocess.run([*command, source / "integrations" / "livekit"], capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stdout + build.stderr
    [wheel] = (tmp_path / "dist").glob("memoair_livekit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    packages = {name.partition("/")[0] for name in names if ".dist-info" not in name}

    assert packages == {"memoair_livekit"}
    assert "memoair_livekit/py.typed" in names
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    lines = metadata.splitlines()
    assert "Name: memoair-livekit" in lines
    assert "License-Expression: Apache-2.0" in lines
    assert any(line.startswith("Requires-Dist: livekit-agents>=1.") for line in lines)
    assert any(line.startswith("Requires-Dist: memoair-voice>=0.") for line in lines)
    assert "pip install . ./integrations/livekit" in metadata
