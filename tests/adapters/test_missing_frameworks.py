"""The error for a framework that is not installed; everything else works without it."""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Hides packages from a process, as if they were not installed.
HIDE_CODE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Hidden())
"""
TOOL_CODE = """
from {package} import {kind}
memory = {kind}(project_id="proj_acme", user_id="caller_42", runtime_url="http://127.0.0.1:0")
try:
    memory.{method}()
except ImportError as error:
    print(error)
assert memory.search_memory_tool().schema() == memory.to_openai_function()
print(*sorted(name for name in {frameworks!r} if name in sys.modules))
"""
FRAMEWORKS = ("livekit", "pipecat", "langchain_core", "mcp", "openai", "pydantic", "anyio", "asyncio")


def run_code(code: str, *, status: int = 0) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert process.returncode == status, process.stderr
    return (process.stdout + process.stderr).splitlines()


@pytest.mark.parametrize(
    ("package", "kind"),
    [("memoair_voice_sync", "MemoAirVoiceMemorySync"), ("memoair_voice", "MemoAirVoiceMemory")],
)
@pytest.mark.parametrize(
    ("method", "hidden", "framework", "extra"),
    [
        ("to_livekit_tool", "livekit", "LiveKit Agents", "livekit"),
        ("to_pipecat_tool", "pipecat", "Pipecat", "pipecat"),
        ("to_langchain_tool", "langchain_core", "LangChain", "langchain"),
    ],
)
def test_the_error_for_a_missing_framework_names_the_package_to_install(
    package: str, kind: str, method: str, hidden: str, framework: str, extra: str
) -> None:
    code = TOOL_CODE.format(package=package, kind=kind, method=method, frameworks=FRAMEWORKS)
    message, loaded = run_code(HIDE_CODE.format(hidden=[hidden]) + code)

    assert message == f"{method}() needs {framework}: pip install 'memoair-voice[{extra}]>=0.4'"
    assert hidden not in loaded.split()


def test_the_mcp_server_names_the_package_to_install() -> None:
    code = (
        HIDE_CODE.format(hidden=["mcp", "mcp_types"]) + "sys.argv = ['memoair', 'mcp']\nimport memoair_cli.app as app\n"
    )
    assert run_code(code + "app.main()", status=1) == [
        "memoair mcp needs the MCP library: pip install 'memoair-voice[mcp]>=0.4'"
    ]


def test_every_framework_has_an_extra_and_is_in_the_dev_extra() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    # Compare names only: the tests may require a framework with extras of its own.
    extras = {
        name: {re.split(r"[\[>=]", requirement)[0] for requirement in value.split()}
        for name, value in config["options.extras_require"].items()
    }

    for name in ("livekit", "pipecat", "langchain", "mcp"):
        assert extras[name]
        assert extras[name] <= extras["dev"]


def test_a_search_loads_no_framework() -> None:
    code = "import sys, memoair_voice_sync, memoair_cli.app\nprint(*sys.modules)"
    loaded = set(run_code(code)[0].split())
    assert not {"livekit", "pipecat", "langchain_core", "mcp", "openai", "pydantic"} & loaded
