"""The code blocks of a Markdown page, and a player that does what the page tells its reader to do."""

import ast
import configparser
import doctest
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import typer.main
import urllib3
import webvtt
import yaml
from packaging.requirements import Requirement
from typer.testing import CliRunner

from memoair_cli.app import app
from support.waiting import PATIENCE

_FENCE = re.compile(r"^( *)```(.*)$")
_SKIP_REASON = re.compile(r"^ *<!-- not run: (.+) -->$")
_COMMAND = re.compile(r"^(\$ |(memoair|pip|python3?|curl|export|docker|git|cd|apt) )")
# Blocks of these languages are parsed; all others are run.
PARSERS: Mapping[str, Any] = {
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "webvtt": webvtt.from_string,
    "srt": lambda text: webvtt.from_buffer(StringIO(text), format="srt"),
    "ini": lambda text: ConfigParser(strict=False, interpolation=None).read_string(text),
}
# The title of a block with the output of the block before it; "..." matches anything.
OUTPUT = "Output"
# These commands do not end by themselves. What they serve is running already when a page is played.
SERVERS = (["cloud", "serve"], ["cloud", "worker"], ["cloud", "demo"])


class Block(NamedTuple):
    """A code block of a page.

    Attributes:
        page: The name of the page.
        line: The line where the code begins.
        language: Its language; empty if it is indented without a fence.
        title: Its title, if any.
        code: The code.
        skip_reason: Why the block is not run; empty if it is.
    """

    page: str
    line: int
    language: str
    title: str
    code: str
    skip_reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def parse_blocks(path: Path, page: str) -> Iterator[Block]:
    """Yield the code blocks of a page in order, including blocks that are only indented."""
    lines = path.read_text(encoding="utf-8").splitlines()
    skip_reason, index = "", 0
    while index < len(lines):
        line = lines[index]
        if fence := _FENCE.match(line):
            end = next(i for i in range(index + 1, len(lines)) if lines[i].strip() == "```")
            language, _, attributes = fence[2].partition(" ")
            title = re.search(r'title="([^"]+)"', attributes)
            code = [row[len(fence[1]) :] for row in lines[index + 1 : end]]
            yield Block(
                page, index + 2, language or "none", title[1] if title else "", "\n".join(code) + "\n", skip_reason
            )
            index = end
        elif line.startswith("    ") and not lines[index - 1].strip():
            end = next(
                (i for i in range(index, len(lines)) if lines[i] and not lines[i].startswith("    ")), len(lines)
            )
            code = [row[4:] for row in lines[index:end]]
            yield Block(
                page,
                index + 1,
                "python" if _contains_call(code) else "",
                "",
                "\n".join(code).rstrip() + "\n",
                skip_reason,
            )
            index = end - 1
        if line.strip():
            reason = _SKIP_REASON.match(line)
            skip_reason = reason[1] if reason else ""
        index += 1


def _contains_call(lines: list[str]) -> bool:
    """Return whether the lines are Python with a call, as opposed to a drawing."""
    try:
        return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse("\n".join(lines))))
    except SyntaxError:
        return False


def split_commands(code: str) -> Iterator[str]:
    """Yield the commands of a block, which may span lines: all lines, or only those with a prompt if there are any."""
    lines = iter(code.splitlines())
    has_prompts = "\n$ " in f"\n{code}"
    for line in lines:
        if not line.strip() or (has_prompts and not line.startswith("$ ")):
            continue
        command = line.removeprefix("$ ")
        while not _is_complete(command):
            command += "\n" + next(lines)
        yield command.replace("\\\n", " ")


def _is_complete(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


def find_command(block: Block) -> str | None:
    """Return the first command in a block without a language or of ``text``, where commands do not belong."""
    return next((line for line in block.code.splitlines() if _COMMAND.match(line)), None)


# Runs the Python blocks of a page in one process, so that later blocks can use names of earlier ones.
_DRIVER = """
import json, sys
names = {"__name__": "__main__"}
for line in sys.stdin:
    job = json.loads(line)
    exec(compile("\\n" * (job["line"] - 1) + job["code"], job["page"], "exec"), names)
    print(job["end"], flush=True)
"""
_END = "-- end of block --"


class Player:
    """Does what a page says, in its own folder, and compares the output with what the page shows.

    ``environ`` are the reader's variables; ``export`` does not override them, so that a page may show a fake key.
    ``runtime_url`` is the runtime that the page's ``curl`` reaches. ``skipped_commands`` are endings of commands that
    are
    not run.
    """

    def __init__(
        self, folder: Path, environ: Mapping[str, str], runtime_url: str = "", skipped_commands: tuple[str, ...] = ()
    ) -> None:
        self._folder = folder
        self._given_environ = dict(environ)
        # Pipecat logs a greeting to stderr when it is imported.
        self._environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "LOGURU_LEVEL": "WARNING"}
        self._environ["PYTHONPATH"] = PATIENCE
        self._environ |= environ
        self._runtime_url = runtime_url
        self._skipped_commands = skipped_commands
        self._python: subprocess.Popen[str] | None = None
        self._last_output = ""  # the output of the last block
        self._unrun_programs: set[str] = set()  # Python files that no command has run yet
        self._finished_programs: set[str] = set()
        self.commands: list[list[str]] = []  # the arguments of our own commands

    def play_block(self, block: Block) -> None:
        """Run one block."""
        if block.skip_reason:
            return
        if block.title and block.title != OUTPUT:
            file = self._folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code, encoding="utf-8")
            if file.suffix == ".py":
                self._unrun_programs.add(block.title)
        if block.language in PARSERS:
            PARSERS[block.language](block.code)
        elif block.language == "python" and not block.title:
            self._last_output = self._run_python(block)
        elif block.language == "console":
            self._last_output = "".join(self._run_command(command, block) for command in split_commands(block.code))
        elif block.language == "text" and block.title == OUTPUT:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            matches = doctest.OutputChecker().check_output(block.code, self._last_output, flags)
            assert matches, f"{block} shows\n{block.code}\nbut the output was\n{self._last_output}"
        elif block.language not in ("", "text", "python"):
            raise AssertionError(
                f"{block}: unknown language {block.language!r}: support it, or say why the block is not run"
            )

    def close(self) -> None:
        """End the page. Nothing may have been printed to stderr, and all programs must have been run."""
        if self._python is not None:
            out, _ = self._python.communicate(timeout=100)
            errors = (self._folder / "stderr").read_text(encoding="utf-8")
            assert (self._python.returncode, errors) == (0, ""), out + errors
        assert not self._unrun_programs, f"no command runs {self._unrun_programs}"

    def kill(self) -> None:
        """Kill what may still be running."""
        if self._python is not None:
            self._python.kill()
            self._python.communicate()

    def _run_python(self, block: Block) -> str:
        if self._python is None:
            with (self._folder / "stderr").open("w") as stderr:
                self._python = subprocess.Popen(
                    [sys.executable, "-W", "error", "-c", _DRIVER],
                    cwd=self._folder,
                    env=self._environ,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        job = {"page": str(block), "line": block.line, "code": block.code, "end": _END}
        self._python.stdin.write(json.dumps(job) + "\n")
        self._python.stdin.flush()
        out = ""
        for line in self._python.stdout:
            if line.endswith(f"{_END}\n"):
                return out + line.removesuffix(f"{_END}\n")
            out += line
        raise AssertionError(f"{block}: {out}{(self._folder / 'stderr').read_text(encoding='utf-8')}")

    def _run_command(self, command: str, block: Block) -> str:
        if command.endswith(self._skipped_commands):
            return ""
        name, *arguments = shlex.split(command, comments=True) or [""]
        if name == "export":
            variables = dict(argument.split("=", 1) for argument in arguments)
            self._environ |= variables | self._given_environ
        elif name == "memoair":
            return self._run_memoair(arguments)
        elif name == "pip" and arguments[0] == "install":
            for requirement in arguments[1:]:
                check_requirement(requirement)
        elif name == "python" and arguments[0] in self._unrun_programs | self._finished_programs:
            return self._run_program(*arguments)
        elif name == "curl":
            self._run_curl(*arguments)
        elif name:
            raise AssertionError(f"{block}: unknown command {name}: support it, or say why it is not run")
        return ""

    def _run_memoair(self, arguments: list[str]) -> str:
        check_cli_arguments(arguments)
        self.commands.append(arguments)
        if arguments[:2] in SERVERS:
            return ""
        expanded = [
            [str(path) for path in sorted(self._folder.glob(argument))] if "*" in argument else [argument]
            for argument in arguments
        ]
        result = CliRunner().invoke(app, [argument for group in expanded for argument in group], env=self._environ)
        assert result.exit_code == 0, (arguments, result.output)
        if key := re.search(r"memoair_pk_[\w-]{20,}", result.stdout):  # a reader copies it, if it is whole
            self._environ["MEMOAIR_API_KEY"] = key[0]
        return result.stdout

    def _run_program(self, program: str, *arguments: str) -> str:
        text = (self._folder / program).read_text(encoding="utf-8")
        used = {program, *(f"{name}.py" for name in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))}
        self._unrun_programs -= used
        self._finished_programs |= used
        result = subprocess.run(
            [sys.executable, "-W", "error", program, *arguments],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
        return result.stdout

    def _run_curl(self, *arguments: str) -> None:
        """Send the request of ``curl -s URL -d BODY`` to our runtime."""
        silent, url, data, body = arguments
        assert (silent, data) == ("-s", "-d")
        path = url.partition("/")[2]
        with urllib3.PoolManager(retries=False) as pool:
            reply = pool.request("POST", f"{self._runtime_url}/{path}", body=body.encode())
        assert reply.status == 200, reply.data


def check_cli_arguments(arguments: list[str]) -> None:
    """Raise what the command line raises for unknown commands and options, and for incomplete ones."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("memoair", list(arguments), resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        with context:
            _, command, rest = command.resolve_command(
                context, [*getattr(context, "_protected_args", ()), *context.args]
            )
        context = command.make_context(command.name, rest, parent=context)
    context.close()


def check_requirement(text: str) -> None:
    """Check that a requirement is valid, and that our package has its extras."""
    path, bracket, extras = text.partition("[")
    # A path to our checkout, where the reader is.
    requirement = Requirement(f"memoair-voice{bracket}{extras}" if path.startswith(".") else text)
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    if requirement.name == "memoair-voice":
        assert requirement.extras <= set(setup["options.extras_require"]), text
