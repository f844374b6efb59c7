"""The code that a Markdown page shows, block by block, and a player that does what the page tells its reader to do."""

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
_REASON = re.compile(r"^ *<!-- not run: (.+) -->$")
_COMMAND = re.compile(r"^(\$ |(memoair|pip|python3?|curl|export|docker|git|cd|apt) )")
# Blocks of these languages are read by a parser; all others are done.
PARSERS: Mapping[str, Any] = {
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "webvtt": webvtt.from_string,
    "srt": lambda text: webvtt.from_buffer(StringIO(text), format="srt"),
    "ini": lambda text: ConfigParser(strict=False, interpolation=None).read_string(text),
}
# The title of a block that shows what the block before it prints; "..." stands for anything.
OUTPUT = "Output"
# These never end by themselves; what they serve is there already when a page is played.
SERVERS = (["cloud", "serve"], ["cloud", "worker"])


class Block(NamedTuple):
    """A block of a page: where it begins, its language ("" if indented), its title, and why it can't be run, if so."""

    page: str
    line: int
    language: str
    title: str
    code: str
    why_not: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path, page: str) -> Iterator[Block]:
    """The blocks of a page in their order, those that are only indented, too."""
    lines = path.read_text(encoding="utf-8").splitlines()
    why_not, at = "", 0
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            language, _, more = fence[2].partition(" ")
            title = re.search(r'title="([^"]+)"', more)
            code = [each[len(fence[1]) :] for each in lines[at + 1 : end]]
            yield Block(page, at + 2, language or "none", title[1] if title else "", "\n".join(code) + "\n", why_not)
            at = end
        elif line.startswith("    ") and not lines[at - 1].strip():
            end = next((i for i in range(at, len(lines)) if lines[i] and not lines[i].startswith("    ")), len(lines))
            code = [each[4:] for each in lines[at:end]]
            yield Block(page, at + 1, "python" if _calls(code) else "", "", "\n".join(code).rstrip() + "\n", why_not)
            at = end - 1
        if line.strip():
            reason = _REASON.match(line)
            why_not = reason[1] if reason else ""
        at += 1


def _calls(lines: list[str]) -> bool:
    """Whether lines are Python that calls something: a drawing is not."""
    try:
        return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse("\n".join(lines))))
    except SyntaxError:
        return False


def commands_of(code: str) -> Iterator[str]:
    """The commands of a block: all lines, or where some have a prompt, those; one may go on over several lines."""
    lines = iter(code.splitlines())
    has_prompts = "\n$ " in f"\n{code}"
    for line in lines:
        if not line.strip() or (has_prompts and not line.startswith("$ ")):
            continue
        command = line.removeprefix("$ ")
        while not _is_whole(command):
            command += "\n" + next(lines)
        yield command.replace("\\\n", " ")


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


def shown_command(block: Block) -> str | None:
    """The first command that stands in a block of no language or of ``text``, where none belongs."""
    return next((line for line in block.code.splitlines() if _COMMAND.match(line)), None)


# Plays the Python blocks of a page in one process, so that a page may say further on what it has begun.
_DRIVER = """
import json, sys
names = {"__name__": "__main__"}
for line in sys.stdin:
    told = json.loads(line)
    exec(compile("\\n" * (told["line"] - 1) + told["code"], told["page"], "exec"), names)
    print(told["end"], flush=True)
"""
_END = "-- end of block --"


class Player:
    """Does what a page says, in a folder of its own, and compares what it shows of the output.

    ``environ`` is the reader's; ``export`` does not change what stands there already, so that a page may name a key
    that nobody has. ``runtime_url`` is the runtime that the page's ``curl`` reaches. ``leave`` are commands that are
    not run, by how they end.
    """

    def __init__(
        self, folder: Path, environ: Mapping[str, str], runtime_url: str = "", leave: tuple[str, ...] = ()
    ) -> None:
        self._folder = folder
        self._given = dict(environ)
        # Pipecat greets on stderr, by loguru, whoever imports it.
        self._environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "LOGURU_LEVEL": "WARNING"}
        self._environ["PYTHONPATH"] = PATIENCE
        self._environ |= environ
        self._runtime_url = runtime_url
        self._leave = leave
        self._python: subprocess.Popen[str] | None = None
        self._told = ""  # the output of the last block
        self._programs: set[str] = set()  # files of Python that nobody has run yet
        self._ran: set[str] = set()
        self.commands: list[list[str]] = []  # of ours, as they were run

    def play(self, block: Block) -> None:
        """Do what one block says."""
        if block.why_not:
            return
        if block.title and block.title != OUTPUT:
            file = self._folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code, encoding="utf-8")
            if file.suffix == ".py":
                self._programs.add(block.title)
        if block.language in PARSERS:
            PARSERS[block.language](block.code)
        elif block.language == "python" and not block.title:
            self._told = self._run_python(block)
        elif block.language == "console":
            self._told = "".join(self._run(command, block) for command in commands_of(block.code))
        elif block.language == "text" and block.title == OUTPUT:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = doctest.OutputChecker().check_output(block.code, self._told, flags)
            assert same, f"{block} shows\n{block.code}\nbut this was printed:\n{self._told}"
        elif block.language not in ("", "text", "python"):
            raise AssertionError(f"{block}: what is {block.language!r}? Say it, or why it is not run")

    def close(self) -> None:
        """End the page; nothing may have been said on stderr, and no program may have been left lying."""
        if self._python is not None:
            out, _ = self._python.communicate(timeout=100)
            complaints = (self._folder / "stderr").read_text(encoding="utf-8")
            assert (self._python.returncode, complaints) == (0, ""), out + complaints
        assert not self._programs, f"nobody runs {self._programs}"

    def kill(self) -> None:
        """End what may still run."""
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
        told = {"page": str(block), "line": block.line, "code": block.code, "end": _END}
        self._python.stdin.write(json.dumps(told) + "\n")
        self._python.stdin.flush()
        out = ""
        for line in self._python.stdout:
            if line.endswith(f"{_END}\n"):
                return out + line.removesuffix(f"{_END}\n")
            out += line
        raise AssertionError(f"{block}: {out}{(self._folder / 'stderr').read_text(encoding='utf-8')}")

    def _run(self, command: str, block: Block) -> str:
        if command.endswith(self._leave):
            return ""
        name, *arguments = shlex.split(command, comments=True) or [""]
        if name == "export":
            told = dict(each.split("=", 1) for each in arguments)
            self._environ |= told | self._given
        elif name == "memoair":
            return self._run_ours(arguments)
        elif name == "pip" and arguments[0] == "install":
            for each in arguments[1:]:
                check_requirement(each)
        elif name == "python" and arguments[0] in self._programs | self._ran:
            return self._run_program(*arguments)
        elif name == "curl":
            self._ask(*arguments)
        elif name:
            raise AssertionError(f"{block}: nobody knows how to run {name}; say why it is not run")
        return ""

    def _run_ours(self, arguments: list[str]) -> str:
        check_arguments(arguments)
        self.commands.append(arguments)
        if arguments[:2] in SERVERS:
            return ""
        found = [
            [str(path) for path in sorted(self._folder.glob(each))] if "*" in each else [each] for each in arguments
        ]
        done = CliRunner().invoke(app, [each for some in found for each in some], env=self._environ)
        assert done.exit_code == 0, (arguments, done.output)
        if key := re.search(r"memoair_pk_\S+", done.stdout):  # the reader copies it
            self._environ["MEMOAIR_API_KEY"] = key[0]
        return done.stdout

    def _run_program(self, program: str, *arguments: str) -> str:
        text = (self._folder / program).read_text(encoding="utf-8")
        used = {program, *(f"{name}.py" for name in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))}
        self._programs -= used
        self._ran |= used
        done = subprocess.run(
            [sys.executable, "-W", "error", program, *arguments],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def _ask(self, *arguments: str) -> None:
        """As curl would: ``-s URL -d BODY``, sent to our runtime."""
        silent, url, data, body = arguments
        assert (silent, data) == ("-s", "-d")
        path = url.partition("/")[2]
        with urllib3.PoolManager(retries=False) as pool:
            reply = pool.request("POST", f"{self._runtime_url}/{path}", body=body.encode())
        assert reply.status == 200, reply.data


def check_arguments(arguments: list[str]) -> None:
    """Refuse what the command line would refuse: commands and options that do not exist, or are not whole."""
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
    """Refuse a requirement that is none, and an extra of ours that does not exist."""
    requirement = Requirement(text)
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    if requirement.name == "memoair-voice":
        assert requirement.extras <= set(setup["options.extras_require"]), text
