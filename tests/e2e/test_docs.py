"""The README and the documentation: all code on the pages runs, and the code is documented."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from io import BytesIO
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pytest
import typer.main
from support.clouds import running
from support.pages import OUTPUT, PARSERS, Block, Player, find_command, parse_blocks, split_commands
from support.waiting import PATIENCE

from memoair_cli.app import app
from memoair_cloud import errors as cloud_errors
from memoair_runtime import errors as runtime_errors
from memoair_runtime.settings import RuntimeSettings
from memoair_transcripts import TranscriptOptions, TranscriptTurn, read_transcript
from memoair_voice_sync.errors import ERROR_CODES

# Each test runs several programs in sequence: each takes seconds, and many times that on a loaded machine.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCKS = {name: list(parse_blocks(path, name)) for name, path in PAGES.items()}
EXAMPLES = [pytest.param(path, id=path.name) for path in sorted((ROOT / "examples").glob("*.py"))]

# Commands that the tests of the pages do not run, by their ends, and where they run instead.
ELSEWHERE = {
    "memoair demo": "in an environment with nothing but the wheel (test_wheel.py)",
    "pytest -q -m alone tests/chaos tests/e2e": "it runs these tests",
    "memoair cloud demo": "until Ctrl-C (test_cloud_demo.py)",
}


def run_python(tmp_path: Path, *arguments: str) -> str:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": PATIENCE}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_second_run_of_an_example_remembers_the_first(
    example: Path, tmp_path: Path, nothing_left_behind: None
) -> None:
    assert "## permanent" not in run_python(tmp_path, str(example))
    assert "## permanent" in run_python(tmp_path, str(example))


def write_sample_files(folder: Path) -> None:
    """Write the files that commands on several pages read: transcripts of earlier calls, and documents."""
    rows = [block.code for block in BLOCKS["docs/import.md"] if block.language == "jsonl"]
    (folder / "calls").mkdir()
    (folder / "calls" / "calls.jsonl").write_text("".join(rows), encoding="utf-8")
    for name in ("help", "help/fees", "help/.git"):
        (folder / name).mkdir()
    (folder / "help" / "returns.md").write_text(
        "# Returns\n\nUnworn goods go back free of charge.\n\n## Boots\n\nBoots go back within thirty days.\n"
    )
    (folder / "help" / "fees" / "shipping.html").write_text("<h1>Shipping</h1><p>Shipping costs four euros.</p>")
    (folder / "help" / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "faq.jsonl").write_text(json.dumps({"id": "returns", "text": "Boots go back within thirty days."}))
    (folder / "opening-hours.md").write_text("We open at nine.")


@contextmanager
def cloud_for(page: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run a cloud, and yield the environment variables with which the commands of a page reach it."""
    with running(f"sqlite:///{folder / 'cloud.db'}", folder) as cloud:
        client = cloud.account("Fundamento")
        environ = {
            "MEMOAIR_BASE_URL": cloud.url,
            "MEMOAIR_API_KEY": str(client.key),
            "MEMOAIR_PROJECT_ID": "proj_acme",
            "MEMOAIR_CLOUD_DATABASE_URL": str(cloud.services.engine.url),
            "MEMOAIR_CLOUD_BLOB_URL": cloud.services.blobs.url,
        }
        try:
            if not any("memoair projects create" in block.code for block in BLOCKS[page]):
                client.ok("POST", "/v1/projects", {"name": "Acme", "slug": "acme"})
                agent = client.ok("POST", "/v1/projects/proj_acme/agents", {"name": "Returns", "agentType": "voice"})
                environ["MEMOAIR_AGENT_ID"] = agent["id"]
            yield environ
        finally:
            client.close()


# Pages with frameworks that do not support every Python version that we support.
MIN_PYTHON = {"docs/how-to/pipecat.md": (3, 11)}


def needs_cloud(page: str) -> bool:
    """Return whether the code of a page uses a cloud: in its commands, or by environment variables."""
    code = "".join(block.code for block in BLOCKS[page] if not block.skip_reason)
    return "memoair cloud serve" in code or "MEMOAIR_BASE_URL" in code


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.language for block in BLOCKS[page])])
def test_all_code_on_a_page_runs(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened_model: None,
    start_runtime: Callable[..., Any],
    nothing_left_behind: None,
) -> None:
    if sys.version_info < MIN_PYTHON.get(page, ()):
        pytest.skip("the framework needs a newer Python")
    blocks = BLOCKS[page]
    folder = tmp_path / "reader"
    folder.mkdir()
    write_sample_files(folder)
    monkeypatch.chdir(folder)
    with ExitStack() as stack:
        environ = stack.enter_context(cloud_for(page, tmp_path)) if needs_cloud(page) else {}
        url = ""
        if any("curl " in block.code for block in blocks if block.language == "console" and not block.skip_reason):
            port = start_runtime(folder / "storage", PROJECT_ID="proj_acme", USER_ID="caller_42").port
            url = f"http://127.0.0.1:{port}"
        player = Player(folder, environ, url, tuple(ELSEWHERE))
        stack.callback(player.kill)
        for block in blocks:
            player.play_block(block)
        player.close()


def test_each_block_has_a_language_and_few_are_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [block for page in BLOCKS.values() for block in page]
    known = {"python", "console", "text", *PARSERS}
    skipped = [block for block in blocks if block.skip_reason]
    run_elsewhere = [block for block in skipped if re.fullmatch(r"tests/\S+ runs it", block.skip_reason)]
    assert all((ROOT / block.skip_reason.removesuffix(" runs it")).exists() for block in run_elsewhere)
    not_run = [f"{block}: {block.skip_reason}" for block in skipped if block not in run_elsewhere]
    not_run += [f"{end!r}: {reason}" for end, reason in ELSEWHERE.items()]
    with capsys.disabled():
        print(f"\n{len(blocks)} blocks on {len(PAGES)} pages; not run:", *not_run, sep="\n  ")  # noqa: T201

    assert {block.language for block in blocks if not block.skip_reason} <= {"", *known}
    # A command in a block of another language would not be run.
    assert not [
        (str(block), find_command(block)) for block in blocks if block.language in ("", "text") and find_command(block)
    ]
    assert len(blocks) > 25
    assert len(not_run) <= 10


def test_the_pages_show_the_main_commands() -> None:
    commands = [
        command
        for page in BLOCKS.values()
        for block in page
        if block.language == "console"
        for command in split_commands(block.code)
    ]
    shown = {command.split()[1] for command in commands if command.startswith("memoair ")}
    assert {"cloud", "projects", "agents", "indexes", "users", "import", "search", "doctor"} <= shown


def commands_in_prose(page: Path) -> list[str]:
    """Return the commands that a page names within its sentences."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [" ".join(command.split()) for command in re.findall(r"`(memoair [^`]+)`", prose)]


def test_commands_in_prose_exist_with_their_options() -> None:
    named = {command for page in PAGES.values() for command in commands_in_prose(page)}
    assert len(named) > 8
    unknown = []
    for command in sorted(named):
        found: Any = typer.main.get_command(app)
        words = command.split()[1:]
        while words and words[0] in getattr(found, "commands", {}):
            found = found.commands[words.pop(0)]
        options = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
        is_group = hasattr(found, "commands")
        if (is_group and words) or [word for word in words if word.startswith("--") and word not in options]:
            unknown.append(command)
    assert not unknown


def find_silent_blocks(page: str) -> list[str]:
    """Return the blocks of a page that print something and are not followed by what they print."""
    blocks, programs, found = BLOCKS[page], set[str](), []
    for block, following in zip_longest(blocks, blocks[1:]):
        prints = block.language == "python" and "print(" in block.code and not block.skip_reason
        if prints and block.title:
            programs.add(block.title)
        elif prints or (block.language == "console" and any(name in block.code.split() for name in programs)):
            found += [] if following is not None and following.title == OUTPUT else [str(block)]
    return found


def test_what_code_prints_is_on_the_page() -> None:
    # Together with the test that runs all code and compares the output, a page cannot promise what does not happen.
    assert not [block for page in PAGES for block in find_silent_blocks(page)]


def readme_programs() -> list[tuple[Block, str]]:
    """Return the programs of the README, each with its output."""
    blocks = BLOCKS["README.md"]
    return [(block, following.code) for block, following in pairwise(blocks) if block.language == "python"]


@pytest.mark.alone
@pytest.mark.parametrize(("block", "output"), [pytest.param(*pair, id=str(pair[0])) for pair in readme_programs()])
def test_a_program_of_the_readme_prints_its_output_on_the_first_run(
    block: Block, output: str, tmp_path: Path, nothing_left_behind: None
) -> None:
    # With the deadlines of the product: a search that comes before the runtime answers must not end up empty.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.code],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, output.strip(), "")


def read_turns(code: str, name: str, **options: Any) -> list[tuple[str, str, str]]:
    turns = list(read_transcript(BytesIO(code.encode()), name, TranscriptOptions(**options)))
    assert all(isinstance(turn, TranscriptTurn) for turn in turns), turns
    return [(f"{turn.occurred_at}", turn.user_text, turn.assistant_text) for turn in turns]  # type: ignore[union-attr]


def test_the_json_lines_and_the_text_of_the_import_page_are_read() -> None:
    (rows,) = [block.code for block in BLOCKS["docs/import.md"] if block.language == "jsonl"]
    (call,) = [
        block.code
        for block in BLOCKS["docs/import.md"]
        if block.language == "text" and block.code.startswith("userId:")
    ]
    assert read_turns(rows, "calls.jsonl") == [
        ("2026-03-02 09:30:00+00:00", "Where is my parcel?", "In Leeds."),
        ("None", "And now?", "At your door."),
    ]
    assert read_turns(call, "call.txt", callers=("Dana Whitlock",)) == [
        ("2026-03-02 14:04:04+00:00", "", "Hello, this is Juno."),
        ("2026-03-02 14:04:09+00:00", "Hi. My parcel is late.", "I see."),
    ]


def test_the_other_formats_of_the_import_page_are_read() -> None:
    page = (ROOT / "docs/import.md").read_text(encoding="utf-8")
    examples = dict(re.findall(r"^### (\w+)\n.*?^```\w+\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    started_at, options = datetime(2026, 3, 2, 14, 4, tzinfo=timezone.utc), {"callers": ("Dana Whitlock",)}
    files = {
        "WebVTT": ("call.vtt", options),
        "SRT": ("call.srt", {**options, "user_id": "caller_42", "started_at": started_at}),
        "Vapi": ("call.json", {}),
        "Retell": ("call.json", {}),
        "Twilio": ("call.json", {"user_id": "caller_42"}),
    }
    assert set(examples) == set(files)
    for name, (file, settings) in files.items():
        stream = BytesIO(examples[name].encode())
        first, second = list(read_transcript(stream, file, TranscriptOptions(**settings)))  # type: ignore[arg-type]
        assert isinstance(first, TranscriptTurn), (name, first)
        assert isinstance(second, TranscriptTurn), (name, second)
        assert {first.user_id, second.user_id} == {"caller_42"}, name
        expected_times = (started_at + timedelta(seconds=4), started_at + timedelta(seconds=9))
        assert (first.occurred_at, second.occurred_at) == expected_times
        assert (first.user_text, first.assistant_text) == ("", "Hello, this is Juno."), name
        assert (second.user_text, second.assistant_text) == ("Hi. My parcel is late.", ""), name


def test_the_first_commands_of_the_readme_are_the_demo_and_the_tests() -> None:
    commands = re.findall(r"^\$ (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert commands[0].endswith("memoair demo")
    # Three at a time those that may run beside others, then the rest, and none twice with another database.
    assert commands[1].endswith(
        "python -m pytest -q -n 3 --dist loadfile -m 'not alone and not extended'"
        " && .venv-test/bin/python -m pytest -q -m alone tests/chaos tests/e2e"
    )
    assert commands[2].endswith("'.[cloud]' && .venv-cloud/bin/memoair cloud demo")


def test_the_pictures_of_the_readme_are_small() -> None:
    pictures = re.findall(r"^!\[[^\]]+\]\((\S+)\)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert len(pictures) == 2
    assert not [name for name in pictures if (ROOT / name).stat().st_size > 150_000]


def test_every_error_code_and_every_variable_of_the_runtime_is_documented() -> None:
    page = (ROOT / "docs" / "runtime-http.md").read_text(encoding="utf-8")
    source = Path(sys.modules[RuntimeSettings.__module__].__file__ or "").read_text(encoding="utf-8")
    variables = set(re.findall(r'(?:get|_identifier)\(\s*"([A-Z_]+)"', source))

    assert {code for code in ERROR_CODES if code.startswith("runtime.") and code not in page} == {
        "runtime.projection_unavailable",  # other runtimes of this protocol return these two
        "runtime.bootstrap_failed",
    }
    assert len(variables) > 8
    assert not [name for name in variables if f"MEMOAIR_RUNTIME_{name}" not in page]


def codes_in_the_source() -> set[str]:
    """Return all strings of our packages that look like an error code, except for file names."""
    found = {
        code
        for package in sorted(ROOT.glob("memoair_*/"))
        for path in package.rglob("*.py")
        for code in re.findall(r'"((?:pool|runtime|cloud)\.[a-z_]+)"', path.read_text(encoding="utf-8"))
    }
    return found - {"cloud.jsonl", "cloud.db", "runtime.lock"}


def test_troubleshooting_lists_every_error_code_with_its_status() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### `([a-z_.]+)`\n\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))

    assert set(sections) == codes_in_the_source() | set(ERROR_CODES)
    assert not [code for code, text in sections.items() if "**What to do:**" not in text]
    statuses = {code: known.status for code, known in ERROR_CODES.items()}
    for module, base in ((cloud_errors, cloud_errors.ApiError), (runtime_errors, runtime_errors.RequestError)):
        for error in vars(module).values():
            if isinstance(error, type) and issubclass(error, base):
                statuses.setdefault(error.code, error.status)
    assert not [code for code, status in statuses.items() if status and f"HTTP {int(status)}" not in sections[code]]
    # The page says of the same codes as the table that trying again may help.
    transient = {code for code, text in sections.items() if "Trying again may help" in " ".join(text.split())}
    assert transient == {code for code, known in ERROR_CODES.items() if known.is_transient}
