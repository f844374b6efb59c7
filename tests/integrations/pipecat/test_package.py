"""The distribution, its imports and the example, as users get them."""

import ast
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.loopback_server import LoopbackHandler, LoopbackServer
from support.waiting import PATIENCE

# Building and running take seconds, and many times that on a busy machine.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[3]
PROJECT = ROOT / "integrations" / "pipecat"
EXAMPLE = ROOT / "examples" / "pipecat" / "memoair_bot.py"
MODULES = sorted((PROJECT / "memoair_pipecat").glob("*.py"))


def test_the_wheel_holds_the_package_and_declares_its_requirements(tmp_path: Path, nothing_left_behind: None) -> None:
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", ROOT, source], check=True, timeout=200)  # committed files only
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    process = subprocess.run(
        [*build, source / "integrations" / "pipecat"], capture_output=True, text=True, timeout=600, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata_name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
    assert {name for name in names if "dist-info" not in name} == {
        f"memoair_pipecat/{path.name}" for path in (*MODULES, PROJECT / "py.typed")
    }
    assert any(name.endswith("/LICENSE") for name in names)
    assert (metadata["Name"], metadata["Version"]) == ("memoair-pipecat", "0.4.0")
    requirements = {
        requirement.name: str(requirement.specifier)
        for requirement in map(Requirement, metadata.get_all("Requires-Dist", []))
    }
    assert requirements == {"memoair-voice": ">=0.4", "pipecat-ai": ">=1.4"}
    assert "MemoAirMemoryProcessor" in metadata.get_payload()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_the_integration_imports_only_the_public_client(module: Path) -> None:
    source = module.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    own_packages = {name for name in imported if name.startswith("memoair_")}
    assert {name for name in own_packages if not name.startswith("memoair_pipecat")} <= {
        "memoair_voice",
        "memoair_voice.integration",
    }


class RememberingModel(LoopbackServer):
    """A language model with OpenAI's API, whose answer depends on whether the request contains recalled text."""

    def answer(self, handler: LoopbackHandler) -> None:
        """Stream the answer."""
        remembers = "<memory>" in str(json.loads(handler.body)["messages"])
        answer = "You told me that they are red." if remembers else "I do not know yet."
        lines = []
        for delta in ({"role": "assistant", "content": answer}, {}):
            choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
            lines.append(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        handler.reply(b"".join([*lines, b"data: [DONE]\n\n"]), Content_Type="text/event-stream")


@pytest.fixture
def model_url() -> Iterator[str]:
    with RememberingModel() as model:
        yield f"{model.url}/v1"


def test_the_second_run_of_the_example_remembers_the_first(
    tmp_path: Path, nothing_left_behind: None, model_url: str
) -> None:
    environ = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([PATIENCE, str(PROJECT)]),
        "OPENAI_BASE_URL": model_url,
    }

    def run(*lines: str) -> list[str]:
        process = subprocess.run(
            [sys.executable, EXAMPLE],
            input="".join(f"{line}\n" for line in lines),
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        assert "Traceback" not in process.stderr
        assert "action=" not in process.stderr
        return process.stdout.splitlines()

    assert run("My boots are red.") == ["Juno: I do not know yet."]
    assert run("Which colour are my boots?") == ["Juno: You told me that they are red."]
